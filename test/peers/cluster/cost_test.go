package cluster

import (
	"os"
	"testing"
)

// TestProcess: the kernel's files are as they are parsed.
func TestProcess(t *testing.T) {
	if _, err := ProcessCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
	if _, err := processWritten(os.Getpid()); err != nil {
		t.Error(err)
	}
}
