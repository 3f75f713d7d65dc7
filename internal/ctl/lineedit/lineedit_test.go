package lineedit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/term"
)

func TestSplit(t *testing.T) {
	for line, want := range map[string][]string{
		``:                      nil,
		`put a b`:               {"put", "a", "b"},
		` put  'a b'  "c\n\"d"`: {"put", "a b", "c\n\"d"},
		`a\ b '' ""`:            {"a b", "", ""},
		`x'y'"z"`:               {"xyz"},
		`'é "'`:                 {`é "`},
	} {
		got, err := Split(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %q, %v; want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`'a`, `"a`, `a\`, `"a\`} {
		if _, err := Split(line); !errors.Is(err, ErrUnfinished) {
			t.Errorf("%s: %v", line, err)
		}
	}
	if _, err := Split(`"\q"`); err == nil {
		t.Error("an unknown escape passed")
	}
}

func TestHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state", "history")
	h := loadHistory(file)
	for _, line := range []string{"a", "a", "", " secret", "b", strings.Repeat("x", historyLineMax+1)} {
		h.Add(line)
	}
	for _, h := range []*history{h, loadHistory(file)} {
		if h.Len() != 2 || h.At(0) != "b" || h.At(1) != "a" {
			t.Errorf("history %q", h.lines)
		}
	}
	for range 3 * historyLines {
		h.Add("c")
		h.Add("d")
	}
	h = loadHistory(file)
	b, err := os.ReadFile(file)
	if h.Len() != historyLines || err != nil || bytes.Count(b, []byte("\n")) != historyLines {
		t.Errorf("%d lines kept, %d in the file, %v", h.Len(), bytes.Count(b, []byte("\n")), err)
	}
}

// TestKeys feeds keys as a terminal sends them.
func TestKeys(t *testing.T) {
	e := &Editor{Complete: func(line string) []string {
		return map[string][]string{"ge": {"get "}, "get ": {"get ab1", "get ab2"}, "get ab": {"get ab1", "get ab2"}}[line]
	}}
	var out bytes.Buffer
	keys := "ge\t\t\t1\rabc\x03x\r\x1b[A\x1b[A\r\x04"
	e.term = term.NewTerminal(screen{&clearOnInterrupt{in: strings.NewReader(keys)}, &out}, "> ")
	e.term.History = loadHistory("")
	e.term.AutoCompleteCallback = e.complete
	for _, want := range []string{"get ab1", "", "x", "get ab1"} {
		got, err := e.term.ReadLine()
		if err != nil || got != want {
			t.Fatalf("%q, %v; want %q", got, err, want)
		}
	}
	if _, err := e.term.ReadLine(); !errors.Is(err, io.EOF) {
		t.Fatalf("Ctrl-D: %v", err)
	}
	if !strings.Contains(out.String(), "get ab1\r\nget ab2") {
		t.Errorf("candidates are not shown: %q", out.String())
	}
}
