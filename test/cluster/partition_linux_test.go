package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// cutLasts is several election timeouts.
const cutLasts = 4 * time.Second

// cut is one way in which a network of three nodes breaks.
type cut struct {
	name  string
	apply func(*harness.Network)
	// quiet: the term of no group changes.
	quiet bool
	// during expects what is so before it heals.
	during func(*testing.T, *harness.Cluster)
}

var cuts = []cut{
	{name: "n1 is cut from both", during: func(t *testing.T, c *harness.Cluster) { cutOffSaysSo(t, c); othersGoOn(t, c) }, apply: func(n *harness.Network) {
		for i := 1; i < 3; i++ {
			n.Cut(0, i)
			n.Cut(i, 0)
		}
	}},
	{name: "what n1 sends to n2 is lost", apply: func(n *harness.Network) { n.Cut(0, 1) }},
	{name: "n1 and n3 hear only n2", apply: func(n *harness.Network) { n.Cut(0, 2); n.Cut(2, 0) }},
	{name: "packets of gossip are lost", quiet: true, during: allHeard, apply: (*harness.Network).CutGossip},
}

// TestPartitions (S2.2, S3.5, S0.3): a cluster forms, gossips and rebuilds a
// wiped node through firewalls that let in nothing but the documented ports, and
// every partition heals by itself: writes go on, none is lost, all replicas are
// equal.
func TestPartitions(t *testing.T) {
	t.Parallel()
	if !harness.Apart(t) {
		return
	}
	c, network := harness.StartOnNetwork(t, 3)
	allHeard(t, c)
	wipedNodeIsRebuilt(t, c)
	w := startWriter(t, c, 2)
	pids := pidsOf(c)
	for _, p := range cuts {
		p.run(t, c, network, w)
	}
	w.stop()
	verifyJournal(t, c, w)
	c.ExpectEqualDigests(3)
	if now := pidsOf(c); !slices.Equal(pids, now) {
		t.Errorf("nodes were restarted: %v, before %v", now, pids)
	}
	noOtherPortWasTried(t, network)
}

func noOtherPortWasTried(t *testing.T, network *harness.Network) {
	t.Helper()
	for i := range 3 {
		if n := network.Refused(i); n > 0 {
			t.Errorf("node %d was sent %d packets at ports that are not documented", i, n)
		}
	}
	// The firewall is there, and counts: clients have no business at the peer port.
	conn, err := net.DialTimeout("tcp", net.JoinHostPort(harness.Address(0), "7946"), 100*time.Millisecond)
	if err == nil {
		_ = conn.Close()
	}
	if n := network.Refused(0); err == nil || n == 0 {
		t.Errorf("a client at the peer port: %v, %d packets refused", err, n)
	}
}

func pidsOf(c *harness.Cluster) []int { return []int{c.PID(0), c.PID(1), c.PID(2)} }

// run cuts, waits and heals.
func (p cut) run(t *testing.T, c *harness.Cluster, network *harness.Network, w *writer) {
	t.Helper()
	// Elections, and long ones, on a machine that is too busy are nobody's fault;
	// those because of the cut come back with it.
	for attempts := 3; ; attempts-- {
		settleTerms(t, c)
		g := startGaps(t, c)
		elections := p.last(t, c, network, w)
		network.Heal()
		took := harness.Timed(func() {
			c.WaitReady()
			allHeard(t, c)
			c.ExpectEqualDigests(3)
		})
		w.waitMore(50)
		longest, text := g.stop()
		t.Logf("%s: whole %v after it healed; longest time without a write: %v", p.name, took.Round(time.Millisecond), text)
		switch {
		case longest <= gapLimit && (!elections || !p.quiet):
			return
		case attempts == 1:
			t.Errorf("%s, every time: elections %t, without a write for %v", p.name, elections, longest)
			return
		}
	}
}

// last lets a cut last; it returns whether there were elections.
func (p cut) last(t *testing.T, c *harness.Cluster, network *harness.Network, w *writer) (elections bool) {
	t.Helper()
	before := termsOf(t, c)
	p.apply(network)
	harness.Pass(t, cutLasts)
	if p.during != nil {
		p.during(t, c)
	}
	w.waitMore(50)
	after := termsOf(t, c)
	t.Logf("%s: terms %v, before %v; %s", p.name, after, before, heardBy(t, c))
	return !maps.Equal(before, after)
}

// wipedNodeIsRebuilt: a node that lost its disk gets all data through the
// firewall.
func wipedNodeIsRebuilt(t *testing.T, c *harness.Cluster) {
	t.Helper()
	const values = 48 // of 1 MB
	cl := c.Client(client.Config{Timeout: time.Minute})
	for n := range values {
		if _, err := cl.Put(t.Context(), fmt.Sprintf("large/%d", n), bytes.Repeat([]byte{byte(n), 'x'}, 1<<19)); err != nil {
			t.Fatal(err)
		}
	}
	old := members(t, c).idOf(t, c, 2)
	c.Kill(2)
	if err := os.RemoveAll(c.Nodes()[2].DataDir); err != nil {
		t.Fatal(err)
	}
	c.Restart(2)
	took := harness.Timed(func() {
		c.WaitReady(2)
		expectReplaced(t, c, 2, old)
		c.ExpectEqualDigests(3)
		allHeard(t, c)
	})
	page, err := c.Metrics(2)
	if err != nil || !strings.Contains(page, `kvstore_snapshots_total{direction="received"}`) {
		t.Errorf("no snapshot was received: %v", err)
	}
	t.Logf("the wiped node has all of %d MB %v after its start", values, took.Round(time.Millisecond))
}

// othersGoOn waits until the nodes without n1 lead all groups, and take n1 for
// dead.
func othersGoOn(t *testing.T, c *harness.Cluster) {
	t.Helper()
	all := termsOf(t, c)
	harness.Eventually(t, func() error {
		if led := ledBy(t, c, 1, 2); len(led) < len(all) {
			return fmt.Errorf("n2 and n3 lead %d of %d groups", len(led), len(all))
		}
		for i := 1; i < 3; i++ {
			heard, err := heardOf(c, i)
			if err != nil || heard["n1"] != "dead" {
				return fmt.Errorf("n%d hears %v of n1, %w", i+1, heard["n1"], err)
			}
		}
		return nil
	})
}

// cutOffSaysSo: callers of n1 that may know no other node are told at once that it
// is cut off, and when to come back, instead of waiting for their deadline.
func cutOffSaysSo(t *testing.T, c *harness.Cluster) {
	t.Helper()
	harness.Eventually(t, func() error { // a node that led gives that up first
		if c.Ready(c.Nodes()[0]) == nil {
			return errors.New("n1 does not know yet that it is cut off")
		}
		return nil
	})
	longest := time.Duration(0)
	for key := range 4 { // of several groups
		for _, method := range []string{http.MethodPut, http.MethodGet} {
			req, err := http.NewRequestWithContext(t.Context(), method, fmt.Sprintf("http://%s/api/v1/keys/cut-off-%d", c.Nodes()[0].HTTP, key), strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			took := time.Since(began)
			longest = max(longest, took)
			if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || took > cutOffLimit {
				t.Errorf("%s at the node that is cut off: %d after %v, Retry-After %q, %s", method, resp.StatusCode, took, resp.Header.Get("Retry-After"), text)
			}
		}
	}
	t.Logf("callers of the node that is cut off are told after %v at most", longest.Round(time.Millisecond))
}

// cutOffLimit is far below the default deadline of 10 s.
const cutOffLimit = 4 * time.Second

// heardOf is the column GOSSIP of `kvctl status`, asked of node i.
func heardOf(c *harness.Cluster, i int) (heard map[string]string, err error) {
	r := c.Ctl("status", "-e", c.Nodes()[i].GRPC, "--gateway", "-o", "json")
	var view struct {
		Nodes []struct {
			Name  string `json:"name"`
			State string `json:"gossip_state"`
		} `json:"nodes"`
	}
	if err := json.Unmarshal([]byte(r.Out), &view); err != nil {
		return nil, fmt.Errorf("kvctl status: %v: %w", r, err)
	}
	heard = map[string]string{}
	for _, n := range view.Nodes {
		heard[n.Name] = n.State
	}
	return heard, nil
}

// allHeard waits until every node hears that every node is alive.
func allHeard(t *testing.T, c *harness.Cluster) {
	t.Helper()
	want := map[string]string{"n1": "alive", "n2": "alive", "n3": "alive"}
	for i := range 3 {
		harness.Eventually(t, func() error {
			heard, err := heardOf(c, i)
			if err == nil && !maps.Equal(heard, want) {
				err = fmt.Errorf("n%d hears %v", i+1, heard)
			}
			return err
		})
	}
}

// heardBy describes what all nodes hear, and whether they serve.
func heardBy(t *testing.T, c *harness.Cluster) string {
	t.Helper()
	var out []string
	for i, n := range c.Nodes() {
		heard, err := heardOf(c, i)
		if err != nil {
			t.Fatal(err)
		}
		serves := "serves"
		if c.Ready(n) != nil {
			serves = "is not ready"
		}
		out = append(out, fmt.Sprintf("%s %s and hears %v", n.Name, serves, heard))
	}
	return strings.Join(out, "; ")
}

var termLine = regexp.MustCompile(`(?m)^kvstore_term\{group="(\d+)"\} (\S+)$`)

// termsOf returns the highest term of every group that a node knows.
func termsOf(t *testing.T, c *harness.Cluster) map[string]float64 {
	t.Helper()
	terms := map[string]float64{}
	for i := range 3 {
		page, err := c.Metrics(i)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range termLine.FindAllStringSubmatch(page, -1) {
			var term float64
			if _, err := fmt.Sscan(m[2], &term); err != nil {
				t.Fatal(err)
			}
			terms[m[1]] = max(terms[m[1]], term)
		}
	}
	return terms
}

// settleTerms waits until leaderships are where they belong: every node leads
// something, and no term changes for a while.
func settleTerms(t *testing.T, c *harness.Cluster) {
	t.Helper()
	harness.Eventually(t, func() error {
		before := termsOf(t, c)
		harness.Pass(t, harness.Settle)
		for i := range 3 {
			if len(ledBy(t, c, i)) == 0 {
				return fmt.Errorf("node %d leads nothing", i)
			}
		}
		if after := termsOf(t, c); !maps.Equal(before, after) {
			return fmt.Errorf("terms %v were %v", after, before)
		}
		return nil
	})
}

// gaps measures, for one key of each group, the longest time between writes
// that were acknowledged.
type gaps struct {
	t       *testing.T
	done    chan struct{}
	writers sync.WaitGroup
	mu      sync.Mutex
	longest map[uint32]time.Duration
}

// gapLimit is above the aim of 3 s, for loaded machines, and below the deadline
// of a client that waits at a node which is cut off.
const gapLimit = 6 * time.Second

func startGaps(t *testing.T, c *harness.Cluster) *gaps {
	t.Helper()
	g := &gaps{t: t, done: make(chan struct{}), longest: map[uint32]time.Duration{}}
	cl := c.Client(client.Config{})
	m := members(t, c)
	for _, group := range m.topology.GetGroups() {
		if id := group.GetGroup(); id != 0 {
			key := m.keyIn(t, id)
			g.writers.Go(func() { g.write(cl, id, key) })
		}
	}
	return g
}

func (g *gaps) write(cl *client.Client, group uint32, key string) {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	last := time.Now()
	for {
		began := time.Now()
		_, err := cl.Put(g.t.Context(), key, []byte("x"))
		now := time.Now()
		if err != nil {
			g.t.Logf("group %d, after %v: %v", group, now.Sub(began).Round(time.Millisecond), err)
		}
		g.mu.Lock()
		g.longest[group] = max(g.longest[group], now.Sub(last))
		g.mu.Unlock()
		if err == nil {
			last = now
		}
		select {
		case <-g.done:
			return
		case <-ticker.C:
		}
	}
}

// stop returns the longest time, and those of all groups for the log.
func (g *gaps) stop() (most time.Duration, text string) {
	g.t.Helper()
	close(g.done)
	g.writers.Wait()
	var out []string
	for _, group := range slices.Sorted(maps.Keys(g.longest)) {
		most = max(most, g.longest[group])
		out = append(out, fmt.Sprintf("group %d %v", group, g.longest[group].Round(time.Millisecond)))
	}
	return most, strings.Join(out, ", ")
}
