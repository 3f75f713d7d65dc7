package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"

	"kvstore/internal/ctl/lineedit"
	"kvstore/internal/ctl/target"
	"kvstore/internal/node/nodetest"
)

// changing are texts that differ in every run.
var changing = regexp.MustCompile(`\d{17,}|\d{4}-\d\d-\d\dT[\d:.]+Z|\}[a-z0-9]{26}-[0-9A-V]{8}|"remaining_ms":\d+`)

// TestLocks runs the scripts of testnode against a whole node: leases, locks and
// elections. -rewrite writes the outputs again.
func TestLocks(t *testing.T) {
	if os.Getenv("SHELL") == "" {
		t.Setenv("SHELL", "/bin/sh")
	}
	isolate(t)
	n := nodetest.Start(t, 3)
	t.Setenv(target.EnvEndpoints, n.GRPC)
	datadriven.Walk(t, "testnode", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			words, err := lineedit.Split(d.Input)
			if err != nil {
				t.Fatalf("%s: %v", d.Pos, err)
			}
			r := kvctl("", words...)
			out := r.out
			if r.err != "" {
				out += "stderr: " + r.err
			}
			if r.code != 0 {
				out += fmt.Sprintf("exit %d\n", r.code)
			}
			return regexp.MustCompile(` {2,}`).ReplaceAllString(changing.ReplaceAllString(out, "*"), "  ")
		})
	})
	t.Run("Lost", testLockLost)
	t.Run("Elect", testElect)
	n.Stop()
	t.Run("OutOfTime", testLockOutOfTime)
}

// lines reads what a program that runs prints.
type lines struct {
	t *testing.T
	r *io.PipeReader
	w *io.PipeWriter
	d *json.Decoder
}

func newLines(t *testing.T) *lines {
	r, w := io.Pipe()
	t.Cleanup(func() { _ = r.Close() })
	return &lines{t, r, w, json.NewDecoder(r)}
}

func (l *lines) next(v any) {
	l.t.Helper()
	if err := l.d.Decode(v); err != nil {
		l.t.Fatal(err)
	}
}

// background runs a command line until its context ends.
func background(ctx context.Context, out io.Writer, args ...string) (code chan int, errs *bytes.Buffer) {
	code, errs = make(chan int, 1), new(bytes.Buffer)
	go func() { code <- Run(ctx, args, Streams{In: strings.NewReader(""), Out: out, Err: errs}) }()
	return code, errs
}

// A command whose lock is lost is ended, and the exit code says so.
func testLockLost(t *testing.T) {
	out := newLines(t)
	code, errs := background(t.Context(), out.w, "lock", "lost", "--ttl", "9s", "--", "sh", "-c", `echo "\"$KVCTL_LOCK_LEASE\""; exec sleep 600`)
	var lease string
	out.next(&lease)
	if r := kvctl("", "lease", "revoke", lease); r.code != 0 || !strings.Contains(r.out, "1 keys deleted") {
		t.Fatalf("%+v", r)
	}
	if got := <-code; got != exitLost || !strings.Contains(errs.String(), "the lock was lost") {
		t.Fatalf("exit %d: %s", got, errs)
	}
}

// The time of --wait is all that there is, also for a cluster that does not answer.
func testLockOutOfTime(t *testing.T) {
	began := time.Now()
	r := kvctl("", "lock", "late", "--wait", "300ms", "--", "true")
	if r.code != exitCondition || !strings.Contains(r.err, "lock late: it could not be asked for in 300ms") {
		t.Fatalf("%+v", r)
	}
	if took := time.Since(began); took > 9*time.Second { // of 10 s that one operation has
		t.Fatalf("took %v", took)
	}
	r = kvctl("", "lock", "late", "--try", "--timeout", "300ms", "--", "true")
	if r.code != exitUnavailable {
		t.Fatalf("%+v", r)
	}
}

func testElect(t *testing.T) {
	seen := newLines(t)
	watching, stopWatching := context.WithCancel(t.Context())
	observed, _ := background(watching, seen.w, "elect", "boss", "--observe", "-o", "json")
	var last leaderView
	for i, value := range []string{"a", "b"} {
		out, won := newLines(t), leaderView{}
		ctx, stop := context.WithCancel(t.Context())
		code, errs := background(ctx, out.w, "elect", "boss", value, "-o", "json")
		out.next(&won)
		var l leaderView
		if seen.next(&l); l.Value != value || l.Token != won.Token || !won.Own || l.Token <= last.Token {
			t.Fatalf("%d: %+v won, %+v is seen after %+v", i, won, l, last)
		}
		if r := kvctl("", "elect", "boss", "--leader"); r.code != 0 || !strings.HasSuffix(r.out, " "+value+"\n") {
			t.Fatalf("%+v", r)
		}
		stop()
		if got := <-code; got != exitInterrupted {
			t.Fatalf("exit %d: %s", got, errs)
		}
		last = l
	}
	if r := kvctl("", "elect", "boss", "--leader"); r.code != exitNotFound {
		t.Fatalf("%+v", r)
	}
	stopWatching()
	if got := <-observed; got != exitInterrupted {
		t.Fatalf("exit %d", got)
	}
}
