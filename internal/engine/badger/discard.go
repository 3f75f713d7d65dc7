package badger

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
)

// candidate returns the value log that Badger would rewrite now: the one with
// the most garbage, if that is enough and it is not the log being written.
//
// It reads Badger's own counts: a file of pairs of big-endian (log number,
// bytes of garbage), up to the first zero.
func (e *Engine) candidate() (fid uint32, ok bool) {
	counts, err := os.ReadFile(filepath.Join(e.dir, "DISCARD"))
	if err != nil {
		return 0, false
	}
	var most uint64
	var size int64
	const pair = 16
	for ; len(counts) >= pair; counts = counts[pair:] {
		number, garbage := binary.BigEndian.Uint64(counts), binary.BigEndian.Uint64(counts[8:])
		if number == 0 {
			break
		}
		if garbage <= most {
			continue
		}
		info, err := os.Stat(valueLogPath(e.dir, uint32(number)))
		if err != nil {
			continue // rewritten before
		}
		fid, most, size = uint32(number), garbage, info.Size()
	}
	if most == 0 || filepath.Base(valueLogPath(e.dir, fid)) == currentValueLog(e.dir) {
		return 0, false
	}
	return fid, float64(most) >= garbageRatio*float64(size)
}

// currentValueLog returns the name of the log being written.
func currentValueLog(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if strings.HasSuffix(entries[i].Name(), valueLogSuffix) {
			return entries[i].Name()
		}
	}
	return ""
}
