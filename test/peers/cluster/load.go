package cluster

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kvstore/internal/bench"
	"kvstore/internal/ctl/ctxfile"
)

// slack is what a run may take longer than its warm-up and duration.
const slack = 2 * time.Minute

// Load is one run of kvbench against a cluster.
type Load struct {
	Exe  string
	Args []string
	// Under is a command that runs the rest of its arguments in its place.
	Under []string
	// Env is added to the environment.
	Env              []string
	Warmup, Duration time.Duration
	// Measuring is called when the warm-up should have ended; it may take as
	// long as it wants, but nothing waits for it before the run's own end.
	Measuring func(ctx context.Context)
}

// Outcome is what kvbench said, and its own CPU time, warm-up included.
type Outcome struct {
	Result *bench.Result
	CPU    time.Duration
}

// Load runs kvbench to its end.
func (l *Launcher) Load(ctx context.Context, c *Cluster, o Load) (*Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, o.Warmup+o.Duration+slack)
	defer cancel()
	args := append([]string{"--driver", c.Name, "--endpoints", c.Endpoints(), "-o", "json",
		"--warmup", o.Warmup.String(), "--duration", o.Duration.String()}, o.Args...)
	argv := append(append(slices.Clip(o.Under), o.Exe), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = Environ(append(slices.Clip(o.Env), ctxfile.EnvFile+"="+filepath.Join(filepath.Dir(o.Exe), "no-contexts.yaml"))...)
	var out, progress bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := l.Start(cmd); err != nil {
		return nil, err
	}
	stopped := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stopped()
	measuring := make(chan struct{})
	watch(ctx, io.TeeReader(stderr, &progress), o, measuring)
	<-measuring
	err = cmd.Wait()
	res := new(bench.Result)
	if jerr := json.Unmarshal(out.Bytes(), res); err == nil {
		err = jerr
	}
	if err != nil {
		return nil, fmt.Errorf("kvbench %s: %w\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), progress.Bytes())
	}
	return &Outcome{res, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}, nil
}

// watch reads the progress to its end and starts Measuring a warm-up after
// the line that says that it begins; done is closed when Measuring returned.
func watch(ctx context.Context, progress io.Reader, o Load, done chan struct{}) {
	started := false
	lines := bufio.NewScanner(progress)
	for lines.Scan() {
		if started || o.Measuring == nil || !strings.HasPrefix(lines.Text(), "warming up") {
			continue
		}
		started = true
		go func() {
			defer close(done)
			select {
			case <-time.After(o.Warmup):
				o.Measuring(ctx)
			case <-ctx.Done():
			}
		}()
	}
	if !started {
		close(done)
	}
}
