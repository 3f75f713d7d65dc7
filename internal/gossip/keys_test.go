package gossip

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

func TestParseKeys(t *testing.T) {
	short := base64.StdEncoding.EncodeToString(make([]byte, 16))
	list, err := parseKeys([]byte("# first\n\n  " + key('b') + " \r\n" + short + "\n" + key('b') + "\n"))
	if err != nil || len(list) != 2 || string(list[0]) != strings.Repeat("b", 32) || len(list[1]) != 16 {
		t.Errorf("%d keys, %v", len(list), err)
	}
	secret := "c2VjcmV0IHNlY3JldA" // of no allowed length
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "length": secret + "==\n", "base64": key('a') + "\n" + secret + "!\n",
		"many": manyKeys(maxKeys + 1), "large": strings.Repeat("#\n", maxKeyFileBytes),
	} {
		_, err := parseKeys([]byte(text))
		if fault.CodeOf(err) != fault.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), secret[:6]) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows a key: %v", name, err)
		}
	}
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(key(byte('a'+i)) + "\n")
	}
	return b.String()
}

// Changed files are taken when two polls agree; broken ones are not, and the
// old keys stay.
func TestKeyFilePolls(t *testing.T) {
	file := keyFile(t, key('a'))
	k, err := openKeys(file, slogDiscard)
	if err != nil {
		t.Fatal(err)
	}
	installed := func() string {
		var b strings.Builder
		for _, key := range k.ring.GetKeys() {
			b.WriteByte(key[0])
		}
		return b.String()
	}
	expect := func(want string) {
		t.Helper()
		if got := installed(); got != want {
			t.Errorf("keys %s, want %s", got, want)
		}
	}
	for _, step := range []struct{ file, want string }{
		{"a b", "ab"}, {"b a", "ba"}, {"b", "b"}, {"c d e b", "cdeb"}, {"e x c", "exc"}, {"x", "x"}, {"", "x"}, {"y x", "yx"},
	} {
		var lines []string
		for _, c := range strings.Fields(step.file) {
			lines = append(lines, key(c[0]))
		}
		before := installed()
		mustWrite(t, file, lines...)
		if k.poll() {
			t.Errorf("%q: one look is enough", step.file)
		}
		expect(before)
		if took := k.poll(); took != (step.want != before) {
			t.Errorf("%q: took %v", step.file, took)
		}
		expect(step.want)
	}
	if r, f := k.reloads.Load(), k.failures.Load(); r != 7 || f != 1 {
		t.Errorf("%d reloads, %d failures", r, f)
	}
	if _, err := openKeys(file+".none", slogDiscard); err == nil {
		t.Error("a missing file is opened")
	}
}

// Keys are exchanged without a gap: new key everywhere, then first everywhere,
// then the old one removed. One that still has only the old key cannot take
// part any more.
func TestKeyRotation(t *testing.T) {
	n := newNetwork()
	files := map[string]string{}
	open := func(id string) *node {
		files[id] = keyFile(t, key('a'))
		return n.mustNode(t, keyspace.NodeID(id), nodeOptions{keyFile: files[id]})
	}
	a, b, c := open("node-a"), open("node-b"), open("node-c")
	allSee(t, Alive, a, b, c)
	late := keyFile(t, key('a'))
	for i, lines := range [][]string{{key('a'), key('b')}, {key('b'), key('a')}, {key('b')}} {
		for _, m := range []*node{a, b, c} { // one after the other, as an operator does
			mustWrite(t, files[string(m.id)], lines...)
			eventually(t, func() error {
				if got := m.Stats().KeyReloads; got != int64(i+1) {
					return fmt.Errorf("%s took %d key files", m.id, got)
				}
				return nil
			})
			expectHeard(t, m, fmt.Sprintf("%s-%d", m.id, i), a, b, c)
		}
		allSee(t, Alive, a, b, c)
	}
	for _, m := range []*node{a, b, c} {
		if got := m.Stats().Dropped["decrypt"]; got != 0 {
			t.Errorf("%s could not read %d packets or streams", m.id, got)
		}
		if got := m.Stats().Keys; got != 1 {
			t.Errorf("%s has %d keys", m.id, got)
		}
	}
	old := n.mustNode(t, "node-o", nodeOptions{keyFile: late})
	plain := n.mustNode(t, "node-p", nodeOptions{})
	for _, m := range []*node{a, old, plain} {
		counted(t, m, "decrypt")
	}
	hasMembers(t, old, 1)
	hasMembers(t, plain, 1)
	hasMembers(t, a, 3)
}

// expectHeard has a node say something, which all hear.
func expectHeard(t *testing.T, from *node, name string, all ...*node) {
	t.Helper()
	if err := from.Update(from.says(name)); err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		eventually(t, func() error {
			if got := n.member(from.id).Meta.Name; got != name {
				return fmt.Errorf("%s hears %s from %s, want %s", n.id, got, from.id, name)
			}
			return nil
		})
	}
}
