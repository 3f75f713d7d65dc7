package format

import (
	"encoding/binary"

	"kvstore/internal/fault"
	"kvstore/internal/keyspace"
)

// AppendState encodes s after dst.
func AppendState(dst []byte, s *State) []byte {
	dst = append(dst, Version)
	for _, v := range []uint64{uint64(s.Group), uint64(s.Index), uint64(s.Term), uint64(s.LastRev),
		uint64(s.Ceiling), uint64(s.Closed), s.Chain, uint64(s.Format), uint64(s.NextID)} {
		dst = binary.AppendUvarint(dst, v)
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Members)))
	for _, m := range s.Members {
		dst = binary.AppendUvarint(dst, uint64(m.Replica))
		dst = appendBool(dst, m.Learner)
		dst = appendBytes(dst, []byte(m.Node))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Uploads)))
	for _, u := range s.Uploads {
		dst = binary.AppendUvarint(dst, uint64(u.Stamp))
		dst = binary.AppendUvarint(dst, uint64(u.Term))
		dst = binary.AppendUvarint(dst, uint64(u.Chunks))
	}
	dst = appendBytes(dst, s.ConfState)
	txns := len(s.Prepared) > 0 || s.LowWater != 0
	switch {
	case s.Slots != nil:
		dst = appendSlotState(dst, s.Slots)
	case txns:
		dst = append(dst, noSlotState)
	}
	if txns { // else as every state was before there were any
		dst = appendStateTxns(dst, s)
	}
	return dst
}

// DecodeState decodes b.
func DecodeState(b []byte) (State, error) {
	if len(b) == 0 || b[0] < MinVersion || b[0] > Version {
		return State{}, fault.New(fault.Unsupported, "unknown format version of a replica state",
			"bytes", len(b), "min", MinVersion, "max", Version)
	}
	d := decoder{b: b[1:]}
	var s State
	s.Group = keyspace.GroupID(d.uvarint())
	s.Index = keyspace.Index(d.uvarint())
	s.Term = keyspace.Term(d.uvarint())
	s.LastRev = keyspace.Revision(d.uvarint())
	s.Ceiling = keyspace.Revision(d.uvarint())
	s.Closed = keyspace.Revision(d.uvarint())
	s.Chain = d.uvarint()
	s.Format = uint32(d.uvarint())
	s.NextID = keyspace.ReplicaID(d.uvarint())
	for n := d.count(3); n > 0; n-- {
		m := Member{Replica: keyspace.ReplicaID(d.uvarint()), Learner: d.byte() == 1}
		m.Node = keyspace.NodeID(d.bytes())
		s.Members = append(s.Members, m)
	}
	for n := d.count(3); n > 0; n-- {
		s.Uploads = append(s.Uploads, Upload{Stamp: keyspace.Revision(d.uvarint()),
			Term: keyspace.Term(d.uvarint()), Chunks: uint32(d.uvarint())})
	}
	s.ConfState = append([]byte(nil), d.bytes()...)
	switch {
	case len(d.b) == 0:
	case d.b[0] == noSlotState:
		d.byte()
	default:
		s.Slots = d.slotState()
	}
	if len(d.b) > 0 {
		d.stateTxns(&s)
	}
	return s, d.finish("replica state")
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 1)
	}
	return append(dst, 0)
}

func appendBytes(dst, b []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}
