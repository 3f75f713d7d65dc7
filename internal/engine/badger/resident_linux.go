package badger

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// filePages is the memory of this process that shows files, its program included.
func filePages() int64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte("RssFile:")); ok {
			return kilobytes(rest)
		}
	}
	return 0
}

// residentBytes adds up the memory of the mappings of some files.
func residentBytes(of func(path string) bool) (sum int64, err error) {
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return 0, fmt.Errorf("list mappings: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	counts := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Bytes()
		if rest, ok := bytes.CutPrefix(line, []byte("Rss:")); ok {
			if counts {
				sum += kilobytes(rest)
			}
		} else if first, _, _ := bytes.Cut(line, []byte(" ")); bytes.IndexByte(first, '-') >= 0 { // a range
			m, mapped := parseMapping(string(line))
			counts = mapped && of(m.path)
		}
	}
	return sum, lines.Err()
}

// kilobytes reads the bytes of a figure such as "  1204 kB".
func kilobytes(figure []byte) int64 {
	fields := bytes.Fields(figure)
	if len(fields) == 0 {
		return 0
	}
	kb, err := strconv.ParseInt(string(fields[0]), 10, 64)
	if err != nil {
		return 0
	}
	return kb << 10
}
