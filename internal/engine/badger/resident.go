package badger

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"kvstore/internal/env/system"
)

const (
	// residentLook is how often the memory of mapped files is looked at.
	residentLook = 15 * time.Second
	// quietReads is up to how many reads between two looks a store is quiet: each
	// may have to wait for a page.
	quietReads = 1500
)

// boundResident keeps what mapped files take of the process's memory near a
// bound while little is read, until ctx ends.
//
// Badger maps tables and value logs whole, and writes them through the mapping.
// What was touched once counts as memory of the process until the system runs
// short of it: after some merges that is all of the data. So the kernel is told to
// take the pages back (MADV_PAGEOUT), and the next access reads them from the disk
// again. A store that is busy with reads would lose a fifth of what it can do by
// that, and its memory is well used. Pages that are not on disk yet stay in the page
// cache.
//
// MADV_DONTNEED would leave all of them there and cost less. But the mappings are
// looked up in the kernel's list, and Badger may have ended one before the advice
// arrives: given to memory of the Go runtime that lies there by then, DONTNEED
// would empty it, while PAGEOUT changes no bytes whatever it is given to.
func (e *Engine) boundResident(ctx context.Context, limit int64) {
	e.resident(limit, readsOfUsers, func(d time.Duration) bool { return system.Pause(ctx, d) == nil })
}

// resident looks whenever pause returns, until that says false.
func (e *Engine) resident(limit int64, reads func() int64, pause func(time.Duration) bool) {
	for before := reads(); pause(residentLook); {
		now := reads()
		if now-before <= quietReads {
			e.pageOut(limit)
		}
		before = now
	}
}

// pageOut gives memory back if there is more than limit.
func (e *Engine) pageOut(limit int64) {
	if filePages() <= limit { // cheap, and enough most of the time
		return
	}
	bytes, err := residentBytes(e.pagedOut)
	if err == nil && bytes > limit {
		err = adviseMappings(func(path string) advice {
			if e.pagedOut(path) {
				return advisePageOut
			}
			return adviseNothing
		})
	}
	if err != nil {
		e.log.Debug("mapped files stay in memory", "error", err)
	}
}

// pagedOut reports whether a mapped file is one that may leave memory. The logs of
// memtables are small and go by themselves.
func (e *Engine) pagedOut(path string) bool {
	return filepath.Dir(path) == e.ahead.dir && (strings.HasSuffix(path, tableSuffix) || strings.HasSuffix(path, valueLogSuffix))
}

// readsOfUsers counts the reads that Badger was asked for, in all stores of the
// process: keys, iterators, and values of value logs.
func readsOfUsers() (sum int64) {
	for _, name := range []string{"badger_get_num_user", "badger_iterator_num_user", "badger_read_num_vlog"} {
		sum += badgerCounter(name)
	}
	return sum
}
