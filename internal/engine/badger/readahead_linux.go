package badger

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// adviseMappings asks what to tell the kernel about each file that this process
// has mapped, and does.
func adviseMappings(of func(path string) advice) error {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("list mappings: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		m, ok := parseMapping(lines.Text())
		if !ok {
			continue
		}
		switch of(m.path) {
		case adviseNormal:
			m.advise(unix.MADV_NORMAL)
		case adviseRandom:
			m.advise(unix.MADV_RANDOM)
		case advisePageOut:
			m.advise(unix.MADV_PAGEOUT)
		case adviseNothing:
		}
	}
	return lines.Err()
}

// mapping is a range of addresses that shows a file.
type mapping struct {
	start, end uintptr
	path       string
}

// parseMapping takes a line of /proc/self/maps: range, permissions, offset,
// device, inode, and the path behind spaces, of which it may have some itself.
func parseMapping(line string) (m mapping, ok bool) {
	at := strings.IndexByte(line, '/')
	addresses, _, _ := strings.Cut(line, " ")
	from, to, ok := strings.Cut(addresses, "-")
	if at < 0 || !ok {
		return m, false
	}
	start, err := strconv.ParseUint(from, 16, strconv.IntSize)
	if err != nil {
		return m, false
	}
	end, err := strconv.ParseUint(to, 16, strconv.IntSize)
	return mapping{uintptr(start), uintptr(end), line[at:]}, err == nil && end > start
}

// advise fails only when the range is not mapped any more.
func (m mapping) advise(how uintptr) {
	_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, how)
}
