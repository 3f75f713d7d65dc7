//go:build unix

package cluster

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// verb of an operation on one register.
type verb string

const (
	put    verb = "put"
	create verb = "create"
	cas    verb = "cas" // a put under a version
	del    verb = "delete"
	get    verb = "get"
)

type call struct {
	key     string
	verb    verb
	value   string
	version uint64
}

type answer struct {
	unknown bool
	refused bool // a condition did not hold, or nothing was there to delete
	exists  bool
	value   string
	version uint64
}

// register is the model's state of one key.
type register struct {
	exists  bool
	value   string
	version uint64
}

// after is the register after a call, and whether the call does anything.
func (r register) after(c call) (register, bool) {
	switch {
	case c.verb == del:
		return register{}, r.exists
	case c.verb == create && r.exists, c.verb == cas && (!r.exists || r.version != c.version):
		return r, false
	}
	return register{exists: true, value: c.value, version: r.version + 1}, true
}

// step judges one call. A deleted key starts again with version 1.
func (r register) step(c call, a answer) (bool, register) {
	if c.verb == get {
		return a.exists == r.exists && a.value == r.value && a.version == r.version, r
	}
	next, happens := r.after(c)
	switch {
	case a.unknown:
		return true, next
	case a.refused:
		return !happens, r
	}
	return happens && (c.verb == del || a.version == next.version), next
}

var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		for _, op := range history {
			key := op.Input.(call).key
			byKey[key] = append(byKey[key], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range byKey {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return register{} },
	Step: func(state, in, out any) (bool, any) {
		return state.(register).step(in.(call), out.(answer))
	},
	DescribeOperation: func(in, out any) string { return fmt.Sprintf("%+v -> %+v", in, out) },
}

// registers is a workload on few keys with every verb, by clients that read
// from leaders and from any replica.
type registers struct {
	t     *testing.T
	start time.Time
	stop  chan struct{}
	group sync.WaitGroup
	count atomic.Int64

	mu      sync.Mutex
	ops     []porcupine.Operation
	unknown int
}

// keysPerEpoch registers take opsPerEpoch operations, then new ones begin:
// that bounds what the checker has to search.
const (
	keysPerEpoch = 3
	opsPerEpoch  = 240
)

func startRegisters(t *testing.T, c *harness.Cluster) *registers {
	r := &registers{t: t, start: time.Now(), stop: make(chan struct{})}
	workers := 0
	for _, read := range []client.ReadFrom{client.Leader, client.Any, client.Any} {
		cl := c.Client(client.Config{Read: read})
		for range 2 {
			workers++
			id := workers
			r.group.Go(func() { r.work(cl, id) })
		}
	}
	t.Cleanup(r.end)
	return r
}

func (r *registers) end() {
	select {
	case <-r.stop:
	default:
		close(r.stop)
	}
	r.group.Wait()
}

func (r *registers) work(cl *client.Client, id int) {
	versions := map[string]uint64{}
	random := rand.New(rand.NewPCG(uint64(id), 7))
	for n := 0; ; n++ {
		select {
		case <-r.stop:
			return
		default:
		}
		c := call{
			key:   fmt.Sprintf("register/%d/%d", r.count.Add(1)/opsPerEpoch, random.IntN(keysPerEpoch)),
			verb:  []verb{put, put, create, cas, cas, del, get, get, get, get}[random.IntN(10)],
			value: fmt.Sprintf("%d.%d", id, n),
		}
		c.version = versions[c.key]
		if c.verb == cas && c.version == 0 {
			c.verb = get
		}
		from := time.Since(r.start)
		a, err := r.do(cl, c)
		if err != nil {
			continue // certainly not executed, or a read without an answer
		}
		versions[c.key] = a.version
		r.add(id, c, a, from, time.Since(r.start))
	}
}

func (r *registers) add(id int, c call, a answer, from, to time.Duration) {
	op := porcupine.Operation{ClientId: id, Input: c, Output: a, Call: int64(from), Return: int64(to)}
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.unknown {
		op.Return = math.MaxInt64
		r.unknown++
	}
	r.ops = append(r.ops, op)
}

// do returns an error for an operation that the checker must not see.
func (r *registers) do(cl *client.Client, c call) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	var err error
	a := answer{exists: true, value: c.value}
	switch c.verb {
	case get:
		var rec client.Record
		rec, err = cl.Get(ctx, c.key)
		if errors.Is(err, client.ErrNotFound) {
			return answer{}, nil
		}
		a = answer{exists: true, value: string(rec.Value), version: rec.Version}
	case del:
		var res client.DeleteResult
		res, err = cl.Delete(ctx, c.key)
		a = answer{refused: !res.Existed}
	case put, create, cas:
		var opts []client.PutOption
		if c.verb == create {
			opts = append(opts, client.IfAbsent())
		}
		if c.verb == cas {
			opts = append(opts, client.IfVersion(c.version))
		}
		var res client.PutResult
		res, err = cl.Put(ctx, c.key, []byte(c.value), opts...)
		a.version = res.Version
	}
	switch {
	case errors.Is(err, client.ErrConditionFailed):
		return answer{refused: true}, nil
	case errors.Is(err, client.ErrUnknownOutcome) && c.verb != get:
		return answer{unknown: true}, nil
	}
	return a, err
}

// check ends the workload and judges its history.
func (r *registers) check() {
	r.t.Helper()
	r.end()
	result, info := porcupine.CheckOperationsVerbose(model, r.ops, 2*time.Minute)
	r.t.Logf("%d operations, %d with unknown outcome: %s", len(r.ops), r.unknown, result)
	if result == porcupine.Ok {
		return
	}
	for _, part := range info.PartialLinearizationsOperations() {
		longest := 0
		for _, linear := range part {
			longest = max(longest, len(linear))
		}
		r.t.Logf("a register's longest linearization has %d operations", longest)
	}
	r.t.Errorf("history is %s\n%s", result, r.illegalKey())
}

// illegalKey is the whole history of the first register that is not
// linearizable.
func (r *registers) illegalKey() string {
	for _, part := range model.Partition(r.ops) {
		if porcupine.CheckOperationsTimeout(model, part, time.Minute) == porcupine.Ok {
			continue
		}
		var b strings.Builder
		for _, op := range part {
			fmt.Fprintf(&b, "%d [%v, %v] %s\n", op.ClientId, time.Duration(op.Call), time.Duration(op.Return), model.DescribeOperation(op.Input, op.Output))
		}
		return b.String()
	}
	return ""
}

// TestChaosRegisters: histories of every verb, under kill -9 and pauses, are
// linearizable, also where replicas other than the leader answer reads.
func TestChaosRegisters(t *testing.T) { chaosRegisters(t, harness.Options{}, max(1, *chaos)) }

func chaosRegisters(t *testing.T, o harness.Options, rounds int) {
	c := harness.Start(t, o)
	r := startRegisters(t, c)
	ops := func(n int64) {
		t.Helper()
		want := r.count.Load() + n
		harness.Eventually(t, func() error {
			if got := r.count.Load(); got < want {
				return fmt.Errorf("%d operations, want %d", got, want)
			}
			return nil
		})
	}
	for range rounds {
		ops(300)
		killed := pick(t, 3)
		c.Kill(killed)
		ops(100)
		c.Restart(killed)
		c.WaitReady(killed)
		ops(100)
		paused := pick(t, 3)
		c.Pause(paused)
		harness.Pass(t, 2*harness.Settle) // its groups elect others meanwhile
		ops(50)
		c.Resume(paused)
		ops(200)
		paused = pick(t, 3)
		c.Pause(paused) // shorter than an election
		harness.Pass(t, harness.Settle/5)
		c.Resume(paused)
		c.WaitReady()
	}
	ops(200)
	r.check()
	c.ExpectEqualDigests(3)
}

// TestRegisterModel: the checker accepts what may be and refuses what may not.
func TestRegisterModel(t *testing.T) {
	at := func(from, to int64, c call, a answer) porcupine.Operation {
		return porcupine.Operation{ClientId: int(from), Input: c, Output: a, Call: from, Return: to}
	}
	wrote := func(version uint64) answer { return answer{exists: true, version: version} }
	read := func(v string, version uint64) answer { return answer{exists: true, value: v, version: version} }
	first := at(1, 2, call{verb: put, value: "a"}, wrote(1))
	lost := at(3, math.MaxInt64, call{verb: put, value: "b"}, answer{unknown: true})
	for _, tc := range []struct {
		name string
		ok   bool
		ops  []porcupine.Operation
	}{
		{"read of what was written", true, []porcupine.Operation{first, at(3, 4, call{verb: get}, read("a", 1))}},
		{"lost write", false, []porcupine.Operation{first, at(3, 4, call{verb: get}, answer{})}},
		{"unknown write, not seen", true, []porcupine.Operation{first, lost, at(5, 6, call{verb: get}, read("a", 1))}},
		{"unknown write, seen", true, []porcupine.Operation{first, lost, at(5, 6, call{verb: get}, read("b", 2))}},
		{"unknown write, seen and gone", false, []porcupine.Operation{first, lost, at(5, 6, call{verb: get}, read("b", 2)), at(7, 8, call{verb: get}, read("a", 1))}},
		{"write executed twice", false, []porcupine.Operation{first, at(3, 4, call{verb: get}, read("a", 2))}},
		{"condition that should hold", false, []porcupine.Operation{first, at(3, 4, call{verb: cas, version: 1}, answer{refused: true})}},
		{"deleted and made again", true, []porcupine.Operation{first, at(3, 4, call{verb: del}, answer{}), at(5, 6, call{verb: create, value: "c"}, wrote(1))}},
	} {
		if got := porcupine.CheckOperations(model, tc.ops); got != tc.ok {
			t.Errorf("%s: linearizable is %v", tc.name, got)
		}
	}
}
