package history

import (
	"cmp"
	"slices"
)

// Grant is a lock that somebody got, with its token.
type Grant struct {
	Holder int
	Token  uint64
	Span
}

// Guarded is a write to what the lock guards, under a token. Refused writes are
// Aborted.
type Guarded struct {
	Holder  int
	Token   uint64
	Outcome Outcome
	// Revision of the write, 0 where it is not known.
	Revision uint64
	Span
}

// CheckFencing judges a lock and what it guards: a token has one holder, later
// grants have higher tokens, writes need a token of their writer, and none with an
// older token was accepted after one with a newer one, in time or by revision. That
// a holder writes beside the next one while it does not know of its loss is what
// tokens are for, and no violation.
func CheckFencing(grants []Grant, writes []Guarded) []Violation {
	f := &fencing{holders: map[uint64]int{}}
	f.judgeGrants(grants)
	for _, w := range writes {
		holder, granted := f.holders[w.Token]
		if w.Outcome == Committed && (!granted || holder != w.Holder) {
			f.add("fencing: foreign token", "a write of %d %s was accepted under token %d, which it was never given", w.Holder, w.Span, w.Token)
		}
	}
	f.judgeTime(writes)
	f.judgeRevisions(writes)
	return f.found
}

type fencing struct {
	violations
	holders map[uint64]int
}

func (f *fencing) judgeGrants(grants []Grant) {
	for _, g := range grants {
		if other, twice := f.holders[g.Token]; twice {
			f.add("fencing: token twice", "token %d was given to %d and %d", g.Token, other, g.Holder)
		}
		f.holders[g.Token] = g.Holder
	}
	spans := make([]tokenSpan, len(grants))
	for i, g := range grants {
		spans[i] = tokenSpan{g.Span, g.Token, g.Holder}
	}
	inOrder(spans, func(older, newer tokenSpan) {
		f.add("fencing: tokens go back", "%d got token %d %s, after %d had got %d %s", newer.holder, newer.token, newer.Span, older.holder, older.token, older.Span)
	})
}

// tokenSpan is when a token was given or accepted.
type tokenSpan struct {
	Span
	token  uint64
	holder int
}

// inOrder calls wrong for each that begins after one with a higher token had ended.
func inOrder(all []tokenSpan, wrong func(before, after tokenSpan)) {
	begins, ends := slices.Clone(all), slices.Clone(all)
	slices.SortFunc(begins, func(a, b tokenSpan) int { return cmp.Compare(a.Call, b.Call) })
	slices.SortFunc(ends, func(a, b tokenSpan) int { return cmp.Compare(a.Return, b.Return) })
	var highest tokenSpan
	ended := 0
	for _, s := range begins {
		for ended < len(ends) && ends[ended].Before(s.Span) {
			if ends[ended].token > highest.token {
				highest = ends[ended]
			}
			ended++
		}
		if s.token < highest.token {
			wrong(highest, s)
		}
	}
}

func (f *fencing) judgeTime(writes []Guarded) {
	var accepted []tokenSpan
	for _, w := range writes {
		if w.Outcome == Committed {
			accepted = append(accepted, tokenSpan{w.Span, w.Token, w.Holder})
		}
	}
	inOrder(accepted, func(before, after tokenSpan) {
		f.add("fencing: old token", "a write of %d under token %d %s was accepted after one of %d under %d %s",
			after.holder, after.token, after.Span, before.holder, before.token, before.Span)
	})
}

func (f *fencing) judgeRevisions(writes []Guarded) {
	accepted := slices.DeleteFunc(slices.Clone(writes), func(w Guarded) bool { return w.Outcome != Committed || w.Revision == 0 })
	slices.SortFunc(accepted, func(a, b Guarded) int { return cmp.Compare(a.Revision, b.Revision) })
	for i := 1; i < len(accepted); i++ {
		if a, b := accepted[i-1], accepted[i]; b.Token < a.Token {
			f.add("fencing: old token", "at %d a write of %d under token %d %s follows one of %d under %d at %d %s",
				b.Revision, b.Holder, b.Token, b.Span, a.Holder, a.Token, a.Revision, a.Span)
		}
	}
}
