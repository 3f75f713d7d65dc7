package cluster

import (
	"os"
	"testing"
)

func TestCounter(t *testing.T) {
	text := []byte("# HELP a_total x\na_total{g=\"1\"} 2\na_total{g=\"2\"} 3.5\na_total_more 9\nb 1e+06\n")
	for name, want := range map[string]float64{"a_total": 5.5, "b": 1e6, "c": 0} {
		if got := counter(text, name); got != want {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
}

// TestProcess: the kernel's files are as they are parsed.
func TestProcess(t *testing.T) {
	if _, err := ProcessCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := processWritten(os.Getpid()); err != nil {
		t.Error(err)
	}
}
