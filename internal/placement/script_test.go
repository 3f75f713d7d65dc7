package placement

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
)

// TestScripts: a line of input is "node NAME [zone=Z] [weight=W] [priority=P]
// [draining] [dead] [witness]" or "group ID [on=A,B,C] [load=L]". What comes out
// is each target with its move, or = where nothing changes, and what nodes hold
// and lead.
func TestScripts(t *testing.T) {
	datadriven.Walk(t, "testdata/plan", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			factor := 3
			d.MaybeScanArgs(t, "factor", &factor)
			return script(t, d.Input, factor)
		})
	})
}

func script(t *testing.T, input string, factor int) string {
	var nodes []Node
	var present []Present
	for line := range strings.Lines(input) {
		words := strings.Fields(line)
		if words[0] == "node" {
			nodes = append(nodes, scriptNode(t, words[1:]))
		} else {
			present = append(present, scriptGroup(t, words[1:]))
		}
	}
	targets, err := Plan(nodes, present, factor)
	if err != nil {
		return err.Error() + "\n"
	}
	moves := Moves(present, targets)
	var b strings.Builder
	for _, target := range targets {
		i := slices.IndexFunc(moves, func(m Move) bool { return m.Group == target.Group })
		fmt.Fprintf(&b, "%d on %s", target.Group, strings.Join(target.Replicas, ","))
		if target.Missing > 0 {
			fmt.Fprintf(&b, " missing %d", target.Missing)
		}
		if i < 0 {
			b.WriteString(" =\n")
			continue
		}
		fmt.Fprintf(&b, "%s%s%s\n", joined(" +", moves[i].Add), joined(" -", moves[i].Remove), joined(" lead ", []string{moves[i].Lead}))
	}
	held, led := tally(nodes, after(present, targets))
	for _, n := range nodes {
		fmt.Fprintf(&b, "%s holds %v leads %v\n", n.Name, held[n.Name], led[n.Name])
	}
	return b.String()
}

func joined(prefix string, names []string) string {
	var b strings.Builder
	for _, name := range names {
		if name != "" {
			b.WriteString(prefix + name)
		}
	}
	return b.String()
}

func scriptNode(t *testing.T, words []string) Node {
	n := Node{Name: words[0]}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		var err error
		switch key {
		case "zone":
			n.Zone = value
		case "weight":
			n.Weight, err = strconv.ParseFloat(value, 64)
		case "priority":
			n.Priority, err = strconv.Atoi(value)
		case "draining":
			n.Draining = true
		case "dead":
			n.Dead = true
		case "witness":
			n.Witness = true
		default:
			t.Fatalf("what is %q?", word)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func scriptGroup(t *testing.T, words []string) Present {
	id, err := strconv.Atoi(words[0])
	if err != nil {
		t.Fatal(err)
	}
	p := numbered(id + 1)[id]
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "on":
			p.Replicas = strings.Split(value, ",")
		case "load":
			if p.Load, err = strconv.ParseFloat(value, 64); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("what is %q?", word)
		}
	}
	return p
}
