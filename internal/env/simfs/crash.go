package simfs

import (
	"fmt"
	"path"
	"sort"

	"kvstore/internal/env"
)

// Unit is one thing that a power cut may keep or lose.
type Unit struct {
	// Name of the file, or of the directory whose names change.
	Name string
	// Sector of the file; -1 for its size or for a name.
	Sector int64
	// Versions that may be on the disk instead of the durable one.
	Versions int
}

func (u Unit) String() string { return fmt.Sprintf("%s:%d", u.Name, u.Sector) }

// Choice says what of a unit is on the disk after the cut.
type Choice struct {
	// Version: 0 is what was durable, n the n-th write since.
	Version int
	// Torn, between 1 and SectorBytes-1, keeps only so many bytes of the
	// version, at the sector's beginning, and with TornEnd at its end.
	Torn    int
	TornEnd bool
}

// Pending returns what is not durable, in a fixed order: for each directory
// its changes of names, then for each file its size and its sectors.
func (f *FS) Pending() []Unit {
	f.mu.Lock()
	defer f.mu.Unlock()
	var units []Unit
	f.walk(func(u Unit) Choice {
		units = append(units, u)
		return Choice{}
	})
	return units
}

// Image returns the file system after a power cut that leaves of each unit
// what pick says; it is called in the order of Pending. The image shares no
// memory that changes with f. Hooks and capacity are not copied.
func (f *FS) Image(pick func(n int, u Unit) Choice) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := -1
	return f.walk(func(u Unit) Choice {
		n++
		return pick(n, u)
	})
}

// Crash is Image with choices drawn at random: each unit is lost, kept, or
// torn, and some cuts keep nothing or everything.
func (f *FS) Crash(r env.Rand) *FS {
	mode := r.Uint64() % 4
	return f.Image(func(_ int, u Unit) Choice {
		all := Choice{Version: u.Versions}
		switch x := r.Uint64(); {
		case mode == 0:
			return Choice{}
		case mode == 1:
			return all
		case mode == 2 && x%8 == 0 && u.Sector >= 0:
			all.Torn, all.TornEnd = 1+int(x>>8%(SectorBytes-1)), x>>32&1 == 0
			return all
		default:
			return Choice{Version: int(x % uint64(u.Versions+1))}
		}
	})
}

// walk builds an image by asking about each unit; mu must be held.
func (f *FS) walk(pick func(Unit) Choice) *FS {
	image := New()
	copies := map[*inode]*inode{}
	for _, dir := range f.dirNames() {
		d := f.dirs[dir]
		to := newDirectory()
		for name, i := range d.durable {
			to.durable[name] = i
		}
		for _, c := range d.pending {
			if pick(Unit{Name: dir, Sector: -1, Versions: 1}).Version > 0 {
				c.apply(to.durable)
			}
		}
		image.dirs[dir] = to
	}
	for _, dir := range f.dirNames() {
		to := image.dirs[dir]
		for _, name := range sortedNames(to.durable) {
			i := to.durable[name]
			if copies[i] == nil {
				copies[i] = i.image(path.Join(dir, name), pick)
			}
			to.durable[name] = copies[i]
			to.names[name] = copies[i]
		}
	}
	return image
}

// image returns the inode after the cut.
func (i *inode) image(name string, pick func(Unit) Choice) *inode {
	to := newInode()
	to.size = i.durable
	if i.size != i.durable && pick(Unit{Name: name, Sector: -1, Versions: 1}).Version > 0 {
		to.size = i.size
	}
	to.durable = to.size
	for _, n := range i.numbers() {
		s := i.sectors[n]
		b := s.onDisk()
		if len(s.versions) > 0 {
			b = s.choose(pick(Unit{Name: name, Sector: n, Versions: len(s.versions)}))
		}
		if n*SectorBytes < to.size {
			to.sectors[n] = &sector{durable: b}
		}
	}
	return to
}

func (s *sector) choose(c Choice) []byte {
	if c.Version == 0 {
		return s.onDisk()
	}
	b := s.versions[c.Version-1]
	if c.Torn <= 0 || c.Torn >= SectorBytes {
		return b
	}
	mixed := append([]byte(nil), s.onDisk()...)
	if c.TornEnd {
		copy(mixed[SectorBytes-c.Torn:], b[SectorBytes-c.Torn:])
	} else {
		copy(mixed[:c.Torn], b[:c.Torn])
	}
	return mixed
}

// FlipBit changes one bit of a file, on the disk and in the cache.
func (f *FS) FlipBit(name string, offset int64, bit uint) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := f.lookup(name)
	if i == nil || offset >= i.size {
		return fmt.Errorf("flip bit: %s has no byte %d", name, offset)
	}
	s := i.at(offset / SectorBytes)
	s.durable = flipped(s.onDisk(), offset%SectorBytes, bit)
	for n := range s.versions {
		s.versions[n] = flipped(s.versions[n], offset%SectorBytes, bit)
	}
	return nil
}

// flipped copies, since images share sectors.
func flipped(b []byte, at int64, bit uint) []byte {
	b = append([]byte(nil), b...)
	b[at] ^= 1 << (bit % 8)
	return b
}

func (f *FS) dirNames() []string {
	names := make([]string, 0, len(f.dirs))
	for n := range f.dirs {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

func sortedNames(m map[string]*inode) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
