package placement

import (
	"cmp"
	"slices"

	"kvstore/internal/format"
	"kvstore/internal/keyspace"
)

// SlotMove is slots that go from a group to one of a higher id.
type SlotMove struct {
	From, To keyspace.GroupID
	Slots    format.SlotSet
}

// PlanSlots spreads the slots over groups 1 to groups: each ends with the floor
// or the ceiling of an equal share, as far as moves from lower to higher ids
// allow, which they do when groups were added to an even layout. Those that
// own nothing may be missing from owned.
//
// No plan with that end moves fewer slots: a group gives only what it has above
// its share, and the larger shares go to those that have them. A group gives its
// last slots, and each receiver takes the next piece of what was given, so that
// ranges stay whole where they can. The same input gives the same plan.
func PlanSlots(owned map[keyspace.GroupID]format.SlotSet, groups int) []SlotMove {
	if groups <= 0 {
		return nil
	}
	shares := slotShares(owned, groups)
	var moves []SlotMove
	var given []piece // of lower ids, in their order
	for i, share := range shares {
		g := keyspace.GroupID(i + 1)
		has := owned[g]
		n := has.Count()
		for n < share && len(given) > 0 {
			p := &given[0]
			taken := p.take(share - n)
			n += taken.Count()
			moves = append(moves, SlotMove{From: p.from, To: g, Slots: taken})
			if len(p.slots) == 0 {
				given = given[1:]
			}
		}
		if n > share {
			given = append(given, piece{from: g, slots: last(&has, n-share)})
		}
	}
	slices.SortFunc(moves, func(a, b SlotMove) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return moves
}

// slotShares are how many slots each group should own. The larger shares go to
// groups that have as many, and then to the last ones, which can receive from
// all others.
func slotShares(owned map[keyspace.GroupID]format.SlotSet, groups int) []int {
	floor, more := keyspace.SlotCount/groups, keyspace.SlotCount%groups
	shares := make([]int, groups)
	for i := range shares {
		shares[i] = floor
		if has := owned[keyspace.GroupID(i+1)]; more > 0 && has.Count() > floor {
			shares[i]++
			more--
		}
	}
	for i := groups - 1; more > 0; i-- {
		if shares[i] == floor {
			shares[i]++
			more--
		}
	}
	return shares
}

// piece is what a group gives, in order.
type piece struct {
	from  keyspace.GroupID
	slots []keyspace.SlotID
}

// take removes the first n slots, or all.
func (p *piece) take(n int) (s format.SlotSet) {
	n = min(n, len(p.slots))
	for _, slot := range p.slots[:n] {
		s.Add(slot)
	}
	p.slots = p.slots[n:]
	return s
}

// last are the n highest slots of a set, in order.
func last(s *format.SlotSet, n int) []keyspace.SlotID {
	all := slices.Collect(s.All())
	return all[len(all)-n:]
}
