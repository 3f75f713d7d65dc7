package raftlog

import (
	"flag"
	"math/rand/v2"
	"testing"

	"kvstore/internal/env/simfs"
)

var (
	crashSeeds  = flag.Uint64("crash-seeds", 1, "workloads of the crash-image test")
	crashImages = flag.Int("crash-images", 1024, "images of each moment, at most")
)

// crashTest recovers every image that a power cut may leave after each
// operation on the disk. What may come out is the state after some commit that
// is not older than the last acknowledged one: never half a commit, never
// less, never something else.
type crashTest struct {
	t  *testing.T
	fs *simfs.FS
	r  *rand.Rand
	w  *workload
	// states[n] is the model after n commits; states[acked:] are allowed.
	states []string
	acked  int
	// beside is a sync beside the log of the first began commits, nil for none.
	beside *PendingSync
	began  int
	images int
	seed   uint64
	step   int
}

// S-E3, DESIGN 5: acknowledged data survives any power cut.
func TestCrashImages(t *testing.T) {
	seeds, steps := *crashSeeds, 40
	if testing.Short() {
		seeds, steps = 1, 12
	}
	total := 0
	for seed := range seeds {
		c := &crashTest{
			t: t, fs: simfs.New(), r: rand.New(rand.NewPCG(seed, 7)), seed: seed,
			w: newWorkload(seed, 1200), states: []string{newModel().String()},
		}
		c.run(steps)
		total += c.images
	}
	t.Logf("%d images recovered", total)
}

func (c *crashTest) run(steps int) {
	l := mustOpen(c.t, c.fs)
	c.fs.After(func(o simfs.Op, _ error) {
		switch o.Kind {
		case simfs.OpRead, simfs.OpList, simfs.OpOpen, simfs.OpMkdir:
		default:
			c.cut(o)
		}
	})
	for c.step = range steps {
		b := l.NewBatch()
		c.w.fill(b)
		c.states = append(c.states, c.w.model.String())
		sync := c.r.IntN(3) == 0
		if err := l.Commit(b, sync); err != nil {
			c.t.Fatal(err)
		}
		if sync {
			c.acked = len(c.states) - 1
		}
		c.w.compact(l)
		c.syncBeside(l)
	}
	c.endBeside(l)
	c.fs.After(nil)
	mustClose(c.t, l)
}

// syncBeside begins a sync beside the log, or ends the one there is.
func (c *crashTest) syncBeside(l *Log) {
	switch {
	case c.r.IntN(2) == 0:
	case c.beside != nil:
		c.endBeside(l)
	default:
		c.beside, c.began = l.BeginSync(), len(c.states)-1
	}
}

func (c *crashTest) endBeside(l *Log) {
	if c.beside == nil {
		return
	}
	if err := l.EndSync(c.beside, c.beside.Run()); err != nil {
		c.t.Fatal(err)
	}
	c.acked = max(c.acked, c.began)
	c.beside = nil
}

// cut recovers the images of this moment.
func (c *crashTest) cut(o simfs.Op) {
	pending := c.fs.Pending()
	all := 1
	for _, u := range pending {
		if all *= u.Versions + 1; all > *crashImages {
			break
		}
	}
	if all <= *crashImages {
		for n := range all {
			c.image(o, func(_ int, u simfs.Unit) simfs.Choice {
				version := n % (u.Versions + 1)
				n /= u.Versions + 1
				return simfs.Choice{Version: version}
			})
		}
	} else {
		for i, u := range pending { // each missing alone, each there alone
			c.image(o, func(n int, u simfs.Unit) simfs.Choice {
				if n == i {
					return simfs.Choice{}
				}
				return simfs.Choice{Version: u.Versions}
			})
			c.image(o, func(n int, _ simfs.Unit) simfs.Choice {
				if n == i {
					return simfs.Choice{Version: u.Versions}
				}
				return simfs.Choice{}
			})
		}
		for range *crashImages / 4 {
			c.check(o, c.fs.Crash(c.r))
		}
	}
	for range min(len(pending)*4, 32) { // torn ones
		c.check(o, c.fs.Crash(c.r))
	}
}

func (c *crashTest) image(o simfs.Op, pick func(int, simfs.Unit) simfs.Choice) {
	c.check(o, c.fs.Image(pick))
}

// check recovers an image. Now and then the power is cut again during the
// recovery, and once more after it has returned: then nothing may be lost.
func (c *crashTest) check(o simfs.Op, image *simfs.FS) {
	c.t.Helper()
	c.images++
	again := c.r.IntN(16) == 0
	if again {
		image.After(func(during simfs.Op, _ error) {
			if during.Kind == simfs.OpWrite || during.Kind == simfs.OpSync {
				c.images++
				c.recovered(o, "cut again in recovery", image.Crash(c.r), c.acked)
			}
		})
	}
	at := c.recovered(o, "first recovery", image, c.acked)
	if again {
		image.After(nil)
		none := image.Image(func(int, simfs.Unit) simfs.Choice { return simfs.Choice{} })
		if got := c.recovered(o, "after recovery", none, at); got != at {
			c.t.Fatalf("seed %d step %d %v: recovery showed commit %d, the next one %d", c.seed, c.step, o, at, got)
		}
	}
}

// recovered returns which commit the log on fs is at, from atLeast on.
func (c *crashTest) recovered(o simfs.Op, when string, fs *simfs.FS, atLeast int) int {
	c.t.Helper()
	l, err := Open(fs, testDir, testOptions(rand.New(rand.NewPCG(3, 4))))
	if err != nil {
		c.t.Fatalf("seed %d step %d, %s, after %v: %v", c.seed, c.step, when, o, err)
	}
	got := logString(c.t, l)
	for n := len(c.states) - 1; n >= atLeast; n-- {
		if c.states[n] == got {
			return n
		}
	}
	c.t.Fatalf("seed %d step %d, %s, after %v: the log is at none of the commits %d..%d:\n%s\nwant at least\n%s\nat most\n%s\nrun: go test ./internal/raftlog -run TestCrashImages -crash-seeds %d",
		c.seed, c.step, when, o, atLeast, len(c.states)-1, got, c.states[atLeast], c.states[len(c.states)-1], c.seed+1)
	return 0
}
