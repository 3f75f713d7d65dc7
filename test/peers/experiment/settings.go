package experiment

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"kvstore/internal/bench"
)

// Common are the settings that all experiments have; an Experiment embeds
// them. Values set before Main are defaults of the flags.
type Common struct {
	// Command is what a user runs to repeat it.
	Command   string `json:"command"`
	Profile   string `json:"kvstore_profile"`
	KeySize   int    `json:"key_size"`
	ValueSize int    `json:"value_size"`
	// Mode is kvbench's: pipeline (the SDK) or unary.
	Mode string `json:"mode"`
	// MemoryBudget of each node, such as 1GB; empty: that of the profile.
	MemoryBudget string `json:"memory_budget,omitempty"`
	// Timeout bounds the experiment.
	Timeout time.Duration `json:"timeout_ns"`

	bin, work string
	files     Files
}

func (c *Common) common() *Common { return c } //nolint:unused // what embeds it is an Experiment

func (c *Common) flags(f *flag.FlagSet, name string) {
	f.StringVar(&c.Command, "command", "scripts/bench-"+name, "what the tables name as the command")
	f.StringVar(&c.Profile, "profile", "standard", "profile of the nodes")
	f.IntVar(&c.KeySize, "key-size", 16, "bytes of a key, 12 to 1,024")
	f.IntVar(&c.ValueSize, "value-size", 256, "bytes of a value, up to 16 MB")
	f.StringVar(&c.Mode, "mode", bench.ModePipeline, "pipeline (the SDK) or unary (plain gRPC calls)")
	f.StringVar(&c.MemoryBudget, "memory-budget", c.MemoryBudget, "memory_budget of each node, such as 1GB; empty: the profile's")
	f.DurationVar(&c.Timeout, "timeout", c.Timeout, "of the whole experiment")
	f.StringVar(&c.bin, "bin", "", "directory of kvstore and kvbench")
	f.StringVar(&c.work, "work", "", "directory for the data; a new one inside is used and removed")
	c.files.Flags(f, name)
}

// check reports every setting that cannot be used, and programs that are not
// there; it makes the directories absolute.
func (c *Common) check(name string) error {
	var errs []error
	if c.KeySize < 12 || c.KeySize > 1024 {
		errs = append(errs, fmt.Errorf("--key-size %d: want 12 to 1024", c.KeySize))
	}
	if c.ValueSize < 0 || c.ValueSize > 16<<20 {
		errs = append(errs, fmt.Errorf("--value-size %d: want 0 to %d", c.ValueSize, 16<<20))
	}
	if c.Mode != bench.ModePipeline && c.Mode != bench.ModeUnary {
		errs = append(errs, fmt.Errorf("--mode %q: want %s or %s", c.Mode, bench.ModePipeline, bench.ModeUnary))
	}
	if c.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout %s: want more than 0", c.Timeout))
	}
	if c.bin == "" || c.work == "" {
		return errors.Join(append(errs, fmt.Errorf("--bin and --work are needed; scripts/bench-%s sets them", name))...)
	}
	for _, dir := range []*string{&c.bin, &c.work} {
		abs, err := filepath.Abs(*dir)
		errs = append(errs, err)
		*dir = abs
	}
	for _, exe := range []string{"kvstore", "kvbench"} {
		if _, err := os.Stat(filepath.Join(c.bin, exe)); err != nil {
			errs = append(errs, fmt.Errorf("a program is missing; scripts/bench-%s builds it: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Within reports a whole-number flag that is out of bounds.
func Within(flag string, value, low, high int) error {
	if value < low || value > high {
		return fmt.Errorf("--%s %d: want %d to %d", flag, value, low, high)
	}
	return nil
}

// Lasting reports a duration flag that is out of bounds.
func Lasting(flag string, value, low, high time.Duration) error {
	if value < low || value > high {
		return fmt.Errorf("--%s %s: want %s to %s", flag, value, low, high)
	}
	return nil
}
