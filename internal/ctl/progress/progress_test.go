package progress

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	for _, c := range []struct {
		counts Counts
		bar    bool
		want   string
	}{
		{Counts{}, true, "import 0 items, 0 B, 0 items/s, 0 B/s"},
		{Counts{Items: 5, Bytes: 5 << 20, TotalItems: 10}, true, "import [############............]  50% 5/10 items, 5.0 MiB, 2 items/s, 2.5 MiB/s, 2s left"},
		{Counts{Items: 9, Bytes: 1023, Failed: 1, TotalItems: 10}, false, "import 100% 10/10 items, 1023 B, 4 items/s, 511 B/s, 1 failed"},
		{Counts{Items: 20, TotalItems: 10}, true, "import [########################] 100% 20/10 items, 0 B, 10 items/s, 0 B/s"},
		{Counts{Items: 30, Before: 10, NoBytes: true, TotalItems: 50}, false, "import  60% 30/50 items, 10 items/s, 2s left"},
		{Counts{Items: 10, Before: 10, NoBytes: true}, false, "import 10 items, 0 items/s"},
	} {
		if got := Line("import", c.counts, 2*time.Second, c.bar); got != c.want {
			t.Errorf("have %q\nwant %q", got, c.want)
		}
	}
}

func TestTerminal(t *testing.T) {
	var b bytes.Buffer
	p := New(&b, "x", true, func() int { return 10 })
	p.Start()
	p.Total(2, 10)
	p.Add(1, 5)
	p.Show()
	p.Print("note")
	p.Fail()
	p.Stop()
	p.Stop()
	out := b.String()
	for _, want := range []string{"\r\x1b[Kx [######", "\r\x1b[Knote\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if !strings.HasSuffix(out, "\n") || strings.Contains(out, "items") {
		t.Errorf("too wide or unfinished: %q", out)
	}
}

func TestZeroValueIsSilent(t *testing.T) {
	var p Progress
	p.Start()
	p.Add(1, 1)
	p.Print("x")
	p.Stop()
	if p.Counts().Items != 1 {
		t.Errorf("%+v", p.Counts())
	}
}
