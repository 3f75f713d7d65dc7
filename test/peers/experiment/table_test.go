package experiment

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	table := NewTable("name", "figure")
	table.Row("put", "1")
	if want := "| name | figure |\n| --- | ---: |\n| put | 1 |\n"; table.String() != want {
		t.Errorf("%q, want %q", table, want)
	}
}

func TestCheckTables(t *testing.T) {
	good := "text\n\n| a | b |\n| --- | ---: |\n| 1 | 2 |\n"
	if err := CheckTables(good+"\n"+good, 2); err != nil {
		t.Error(err)
	}
	for what, text := range map[string]string{
		"one table less": good + "\n\n",
		"no rows":        good + "\n| a |\n| --- |\n\n" + good,
		"a missing cell": good + "\n| a | b |\n| --- | ---: |\n| 1 |\n",
		"an empty cell":  good + "\n| a | b |\n| --- | ---: |\n| 1 |  |\n",
		"no rows at end": good + "\n| a |\n| --- |\n",
	} {
		if CheckTables(text, 2) == nil {
			t.Errorf("%s is accepted", what)
		}
	}
}

func TestVerdicts(t *testing.T) {
	text := Verdicts([]Verdict{{"fast", "2x", true}, {"small", "9 GB", false}})
	if !strings.Contains(text, "| fast | 2x | met |") || !strings.Contains(text, "| small | 9 GB | missed |") {
		t.Error(text)
	}
}

func TestCodes(t *testing.T) {
	runs := []*Run{{}, {Errors: map[string]int64{"overloaded": 1000, "deadline_exceeded": 1}}, {Errors: map[string]int64{"overloaded": 500}}}
	if got, want := Codes(ErrorsOf(runs)), "deadline_exceeded 1, overloaded 1,500"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := Codes(nil); got != "0" {
		t.Errorf("%q, want 0", got)
	}
}

// TestSettings: every problem is named at once.
func TestSettings(t *testing.T) {
	c := &Common{KeySize: 1, ValueSize: -1, Mode: "fast"}
	err := c.check("depth")
	if err == nil {
		t.Fatal("nothing is wrong")
	}
	for _, want := range []string{"--key-size 1:", "--value-size -1:", `--mode "fast"`, "--timeout", "scripts/bench-depth sets them"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	c.bin, c.work = t.TempDir(), t.TempDir()
	if err := c.check("depth"); err == nil || !strings.Contains(err.Error(), "scripts/bench-depth builds it") {
		t.Errorf("missing programs: %v", err)
	}
}
