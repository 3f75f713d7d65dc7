//go:build unix

package harness

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

// Result is how a kvctl ended.
type Result struct {
	Code        int
	Out, ErrOut string
}

func (r Result) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", r.Code, tail([]byte(r.Out)), tail([]byte(r.ErrOut)))
}

// Ctl runs kvctl with the context that `kvstore dev` wrote.
func (c *Cluster) Ctl(args ...string) Result {
	c.t.Helper()
	return c.CtlInput("", args...)
}

// CtlInput runs kvctl with text on its standard input.
func (c *Cluster) CtlInput(input string, args ...string) Result {
	c.t.Helper()
	var out, errOut bytes.Buffer
	cmd := c.ctlCommand(args...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	p := StartProcess(c.t, "kvctl "+strings.Join(args, " "), cmd)
	_, err := io.WriteString(p.Stdin, input)
	if cerr := p.Stdin.Close(); err == nil && cerr != nil && input != "" {
		c.t.Logf("kvctl's standard input: %v", cerr)
	}
	code := p.Wait(c.t, 4*Patience)
	return Result{Code: code, Out: out.String(), ErrOut: errOut.String()}
}

// MustCtl runs kvctl and expects success.
func (c *Cluster) MustCtl(args ...string) string {
	c.t.Helper()
	r := c.Ctl(args...)
	if r.Code != 0 {
		c.t.Fatalf("kvctl %s: %v", strings.Join(args, " "), r)
	}
	return r.Out
}

// StartCtl starts kvctl without waiting for it.
func (c *Cluster) StartCtl(args ...string) *Process {
	c.t.Helper()
	return StartProcess(c.t, "kvctl "+strings.Join(args, " "), c.ctlCommand(args...))
}

func (c *Cluster) ctlCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(Binary(c.t, "kvctl"), args...)
	cmd.Env = c.env()
	return cmd
}

// Digest is the answer of `kvctl digest -o json`.
type Digest struct {
	Equal  bool `json:"equal"`
	Groups []struct {
		Group    uint32 `json:"group"`
		Index    uint64 `json:"index"`
		Equal    bool   `json:"equal"`
		Replicas []struct {
			Node  string `json:"node"`
			Hash  string `json:"hash"`
			Keys  uint64 `json:"keys"`
			Error string `json:"error"`
		} `json:"replicas"`
	} `json:"groups"`
}

// ExpectEqualDigests waits until all replicas of all groups can be compared,
// each group with the number of replicas given, and expects equal hashes. A
// difference that is not an unreachable replica fails at once.
func (c *Cluster) ExpectEqualDigests(replicas int) Digest {
	c.t.Helper()
	var d Digest
	Within(c.t, 2*Patience, func() error {
		r := c.Ctl("digest", "-o", "json", "--timeout", "30s")
		d = Digest{}
		if err := json.Unmarshal([]byte(r.Out), &d); err != nil {
			return fmt.Errorf("kvctl digest: %v: %w", r, err)
		}
		return c.judge(d, replicas, r)
	})
	return d
}

func (c *Cluster) judge(d Digest, replicas int, r Result) error {
	c.t.Helper()
	for _, g := range d.Groups {
		hashes := map[string]bool{}
		for _, x := range g.Replicas {
			if x.Error == "" {
				hashes[x.Hash] = true
			}
		}
		if len(hashes) > 1 {
			c.t.Fatalf("replicas of group %d differ at index %d: %v", g.Group, g.Index, r)
		}
		if len(g.Replicas) != replicas {
			return fmt.Errorf("group %d has %d replicas, want %d: %v", g.Group, len(g.Replicas), replicas, r)
		}
	}
	if !d.Equal || len(d.Groups) < 2 {
		return fmt.Errorf("not all replicas could be compared: %v", r)
	}
	return nil
}

// Timed returns how long f took.
func Timed(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}
