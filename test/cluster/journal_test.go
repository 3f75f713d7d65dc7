//go:build unix

package cluster

import (
	"bufio"
	"fmt"
	"hash/fnv"
	"os"
)

// A writer's n-th write goes to key keyOf(n) with the value valueOf(worker, n),
// so that the journal says everything about every write. One write in four
// overwrites an earlier one.

// line is one outcome in the journal: 'A' acknowledged, 'U' unknown, 'F'
// certainly not executed.
type line struct {
	outcome byte
	worker  int
	n       int
}

// lineBytes is the length of every line, so that a file's size counts them.
const lineBytes = 16

func (l line) String() string { return fmt.Sprintf("%c %04d %08d\n", l.outcome, l.worker, l.n) }

func keyOf(worker, n int) string {
	if n%4 == 3 {
		n -= 3
	}
	return fmt.Sprintf("journal/%04d/%08d", worker, n)
}

// valueOf is up to 1 KB, and now and then large enough for chunk entries.
func valueOf(worker, n int) []byte {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%d", worker, n)
	seed := h.Sum64()
	size := 16 + int(seed%1000)
	if n%199 == 50 {
		size = 140<<10 + int(seed%(20<<10))
	}
	value := make([]byte, size)
	copy(value, fmt.Sprintf("%d/%d ", worker, n))
	for i := 16; i < size; i++ {
		seed = seed*6364136223846793005 + 1442695040888963407
		value[i] = byte(seed >> 56)
	}
	return value
}

// fate is what the journal says of one key.
type fate struct {
	worker int
	// acked is the last acknowledged write, -1 for none; unknown are those
	// that may have happened, at any later time.
	acked   int
	unknown []int
}

// allowed are the writes whose value the key may hold.
func (f fate) allowed() []int {
	all := f.unknown
	if f.acked >= 0 {
		all = append([]int{f.acked}, all...)
	}
	return all
}

// counts of a journal's outcomes.
type counts struct{ acked, unknown, failed int }

// readJournal returns the fate of every key. A torn last line is no
// acknowledgement.
func readJournal(path string) (fates map[string]*fate, n counts, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, n, err
	}
	defer func() { _ = f.Close() }()
	fates = map[string]*fate{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if len(lines.Text()) != lineBytes-1 {
			break
		}
		var l line
		if _, err := fmt.Sscanf(lines.Text(), "%c %d %d", &l.outcome, &l.worker, &l.n); err != nil {
			return nil, n, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		key := keyOf(l.worker, l.n)
		if fates[key] == nil {
			fates[key] = &fate{worker: l.worker, acked: -1}
		}
		switch l.outcome {
		case 'A':
			fates[key].acked = l.n
			n.acked++
		case 'U':
			fates[key].unknown = append(fates[key].unknown, l.n)
			n.unknown++
		case 'F':
			n.failed++
		}
	}
	return fates, n, lines.Err()
}
