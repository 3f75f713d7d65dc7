package ctl

import "testing"

// A change of the number of copies is done when they are there, not when nothing
// moves yet.
func TestCopied(t *testing.T) {
	nodes := func(states ...string) (out []shapeNodeView) {
		for _, s := range states {
			out = append(out, shapeNodeView{State: s, Role: "data"})
		}
		return append(out, shapeNodeView{State: "active", Role: "witness"})
	}
	group := func(of int) []copiesView { return []copiesView{{Group: 1, Of: 3}, {Group: 2, Of: of}} }
	for name, c := range map[string]struct {
		v    shapeView
		want bool
	}{
		"not planned yet":         {shapeView{Nodes: nodes("active", "active", "active"), Copies: group(1)}, false},
		"there":                   {shapeView{Nodes: nodes("active", "active", "active"), Copies: group(3)}, true},
		"one moves":               {shapeView{Nodes: nodes("active", "active", "active"), Copies: group(3), Moves: []moveView{{Group: 2}}}, false},
		"one too many":            {shapeView{Nodes: nodes("active", "active", "active", "active"), Copies: group(4)}, false},
		"held":                    {shapeView{Nodes: nodes("active", "active", "active"), Copies: group(1), Held: []uint32{2}}, true},
		"a node drains":           {shapeView{Nodes: nodes("active", "active", "draining"), Copies: []copiesView{{Group: 2, Of: 2}}}, true},
		"a dead one is named yet": {shapeView{Nodes: nodes("active", "active", "silent"), Copies: group(3)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := copied(3, atRest)(c.v); got != c.want {
				t.Errorf("done: %v, want %v", got, c.want)
			}
		})
	}
}
