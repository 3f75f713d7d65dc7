package bench

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/internal/ctl/target"
)

const (
	// maxRuns is how many runs a report tells apart by color.
	maxRuns = 8
	// maxResultBytes bounds one JSON result.
	maxResultBytes = 64 << 20
)

// namedResult is one run of a report.
type namedResult struct {
	name string
	*Result
}

func reportCommand(out io.Writer) *cobra.Command {
	var html string
	cmd := &cobra.Command{
		Use: "report RESULT.json ... --html FILE", Short: "Compare earlier runs (-o json) in one report with charts",
		Example: "  kvbench report before.json after.json --html out.html",
		Args:    usageArgs(cobra.RangeArgs(1, maxRuns)),
		RunE: func(_ *cobra.Command, paths []string) error {
			if html == "" {
				return target.UsageError{Err: errors.New("--html names the file to write")}
			}
			runs, err := readResults(paths)
			if err != nil {
				return err
			}
			if err := writeReport(html, runs); err != nil {
				return err
			}
			_, err = fmt.Fprintln(out, html)
			return err
		},
	}
	cmd.Flags().StringVar(&html, "html", "", "file to write")
	return cmd
}

// readResults reads runs and names them after their files.
func readResults(paths []string) ([]namedResult, error) {
	seen := map[string]int{}
	var runs []namedResult
	for _, path := range paths {
		res, err := readResult(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(path), ".json")
		if seen[name]++; seen[name] > 1 {
			name = fmt.Sprintf("%s (%d)", name, seen[name])
		}
		runs = append(runs, namedResult{name, res})
	}
	return runs, nil
}

func readResult(path string) (*Result, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("result of a run: %w", err)
	}
	res := new(Result)
	err = json.NewDecoder(io.LimitReader(file, maxResultBytes)).Decode(res)
	_ = file.Close() // it was only read
	if err != nil {
		return nil, fmt.Errorf("%s is no result of kvbench -o json: %w", path, err)
	}
	if res.Tool != "kvbench" || res.Format != resultFormat || res.Config == nil {
		return nil, fmt.Errorf("%s is no result of kvbench -o json: tool %q, format %d, want kvbench and %d", path, res.Tool, res.Format, resultFormat)
	}
	return res, nil
}

// writeReport writes a file that needs nothing else.
func writeReport(path string, runs []namedResult) error {
	file, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if err := errors.Join(page.Execute(file, newReport(runs)), file.Close()); err != nil {
		return fmt.Errorf("report %s: %w", path, err)
	}
	return nil
}
