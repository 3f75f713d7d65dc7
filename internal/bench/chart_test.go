package bench

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var escapes = regexp.MustCompile("\x1b\\[[0-9;]*[A-Za-z]")

func TestChartFitsTheTerminal(t *testing.T) {
	for _, color := range []bool{false, true} {
		c := &chart{color: color}
		for i := range 300 {
			c.add(Point{Seconds: float64(i), PerSecond: float64(i * 100), P50: 1, P99: 5})
			for _, size := range [][2]int{{200, 50}, {80, 24}, {40, 10}, {20, 24}, {80, 3}} {
				text := c.draw(size[0], size[1], "a title that is longer than a narrow terminal is wide")
				lines := strings.Split(escapes.ReplaceAllString(text, ""), "\n")
				if len(lines) > size[1] {
					t.Fatalf("%d lines in %v", len(lines), size)
				}
				for _, l := range lines {
					if n := utf8.RuneCountInString(strings.TrimPrefix(l, "\r")); n >= size[0] {
						t.Fatalf("%d columns in %v: %q", n, size, l)
					}
				}
				if !color && strings.Contains(text, "m") && regexp.MustCompile("\x1b\\[[0-9;]*m").MatchString(text) {
					t.Fatalf("color: %q", text)
				}
			}
		}
		if len(c.points) > chartMost {
			t.Errorf("%d points are kept", len(c.points))
		}
	}
}

func TestChartDrawsOverItself(t *testing.T) {
	c := &chart{}
	c.add(Point{PerSecond: 10})
	first := c.draw(80, 24, "x")
	c.add(Point{PerSecond: 20})
	second := c.draw(80, 24, "x")
	if n := strings.Count(first, "\n"); !strings.HasPrefix(second, "\x1b["+string(rune('0'+n))+"A") {
		t.Errorf("%d lines, then %q", n+1, second)
	}
}

func TestBars(t *testing.T) {
	v := []float64{0, 1, 4, 8, 16}
	if got := bars(v, 16, 1, 2) + "|" + bars(v, 16, 0, 2); got != "    █| ▁▄██" {
		t.Errorf("%q", got)
	}
}

func TestLinesWithoutATerminal(t *testing.T) {
	var b bytes.Buffer
	cfg := Default()
	l := newLive(&b, false, &cfg)
	l.warmup()
	l.point(Point{Seconds: 1, PerSecond: 10})
	l.end()
	if strings.Contains(b.String(), "\x1b") || strings.Count(b.String(), "\n") != 2 {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	l = newLive(&b, true, &cfg)
	l.warmup()
	l.point(Point{})
	if b.Len() != 0 {
		t.Errorf("quiet, and wrote %q", b.String())
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "256": 256, "64KB": 65536, "16MiB": 16 << 20, "1 k": 1024, "8mb": 8 << 20, "5B": 5} {
		got := -1
		if err := (sizeFlag{&got}).Set(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-1", "x", "1GB", "1.5MB", "4000MB"} {
		if err := (sizeFlag{new(int)}).Set(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
