package bench

import "slices"

// fewNumbers is up to how many looking at each is cheaper than a map.
const fewNumbers = 32

// numbers is a set that is filled again and again.
type numbers struct {
	few  []int
	many map[int]struct{} // in place of few where there may be more
}

func newNumbers(most int) numbers {
	if most <= fewNumbers {
		return numbers{few: make([]int, 0, most)}
	}
	return numbers{many: make(map[int]struct{}, most)}
}

func (s *numbers) clear() {
	s.few = s.few[:0]
	clear(s.many)
}

// add is false when n is in the set already.
func (s *numbers) add(n int) bool {
	if s.many == nil {
		if slices.Contains(s.few, n) {
			return false
		}
		s.few = append(s.few, n)
		return true
	}
	before := len(s.many)
	s.many[n] = struct{}{}
	return len(s.many) > before
}
