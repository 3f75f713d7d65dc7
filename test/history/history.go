// Package history judges what clients saw of the store, after a run: it knows no
// network, no clock and no random numbers, so that tests can hand it histories
// with planted mistakes.
//
//	lists.go    transactions that read and append to lists: strict serializability
//	bank.go     accounts whose sum never changes
//	store.go    small transactions on a few keys against a model of the whole store
//	watch.go    streams of events against what was written
//	ttl.go      keys with a deadline
//	fencing.go  a register behind a lock with tokens
//
// Every judge returns what is wrong as Violations, at most a few of each kind.
package history

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Outcome is what a client knows of a request that writes.
type Outcome uint8

const (
	// Committed writes were acknowledged.
	Committed Outcome = iota
	// Aborted ones certainly had no effect.
	Aborted
	// Unknown ones may have happened, or may happen at any later time.
	Unknown
)

func (o Outcome) String() string { return [...]string{"committed", "aborted", "unknown"}[o] }

// Forever is the Return of a request without an answer.
const Forever = math.MaxInt64

// Span is when a request was under way, in nanoseconds of one clock of all
// clients. A request without a known outcome returns Forever, whatever is here.
type Span struct{ Call, Return int64 }

// Before says that s had ended when o began.
func (s Span) Before(o Span) bool { return s.Return < o.Call }

func (s Span) String() string {
	to := "never"
	if s.Return != Forever {
		to = time.Duration(s.Return).String()
	}
	return fmt.Sprintf("[%v, %s]", time.Duration(s.Call), to)
}

// Violation is one proof that the store broke a promise.
type Violation struct {
	// Kind names the promise, or the anomaly as the literature does.
	Kind string
	// Text is the counterexample.
	Text string
}

func (v Violation) String() string { return v.Kind + ": " + v.Text }

// mostOfAKind bounds how often one kind is reported.
const mostOfAKind = 3

// Report is all violations as text, "" without any.
func Report(all []Violation) string {
	var b strings.Builder
	for _, v := range all {
		fmt.Fprintf(&b, "%s\n", v)
	}
	return b.String()
}

// violations collects some of each kind.
type violations struct {
	found []Violation
	kinds map[string]int
}

func (v *violations) add(kind, format string, args ...any) {
	if v.kinds == nil {
		v.kinds = map[string]int{}
	}
	if v.kinds[kind]++; v.kinds[kind] <= mostOfAKind {
		v.found = append(v.found, Violation{kind, fmt.Sprintf(format, args...)})
	}
}
