package host

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/invariant"
	"kvstore/internal/keyspace"
)

// Messages of raft have their protobuf encoding on the wire. Those that carry the
// load (appends, acknowledgements, heartbeats) are written and read by hand: each
// number of a message is a pointer, and protobuf allocates every one of them and
// copies the entries once more. What is rare goes through protobuf.

// Numbers of raftpb.Message's fields.
const (
	fieldType       protowire.Number = 1
	fieldTo         protowire.Number = 2
	fieldFrom       protowire.Number = 3
	fieldTerm       protowire.Number = 4
	fieldLogTerm    protowire.Number = 5
	fieldIndex      protowire.Number = 6
	fieldEntries    protowire.Number = 7
	fieldCommit     protowire.Number = 8
	fieldReject     protowire.Number = 10
	fieldRejectHint protowire.Number = 11
	fieldContext    protowire.Number = 12
	fieldVote       protowire.Number = 13
)

// Numbers of raftpb.Entry's fields.
const (
	fieldEntryType  protowire.Number = 1
	fieldEntryTerm  protowire.Number = 2
	fieldEntryIndex protowire.Number = 3
	fieldEntryData  protowire.Number = 4
)

// maxKeptMessage is the largest encoding whose memory is kept for the next one.
const maxKeptMessage = 1 << 20

// outgoing is a message on its way to Outbound, which keeps nothing of it.
type outgoing struct {
	message api.GroupMessage
	raft    api.GroupMessage_Raft
}

// sendRaft hands a message of raft to the transport.
func (h *Host) sendRaft(g *group, to keyspace.NodeID, m *raftpb.Message) {
	o := &h.out
	o.raft.Raft = appendMessage(o.raft.Raft[:0], m)
	o.message.Group, o.message.Body = uint32(g.id), &o.raft
	h.opt.Out.Send(to, &o.message)
	if cap(o.raft.Raft) > maxKeptMessage {
		o.raft.Raft = nil
	}
}

// appendMessage appends the protobuf encoding of m.
func appendMessage(b []byte, m *raftpb.Message) []byte {
	if m.Snapshot != nil || len(m.Responses) > 0 {
		b, err := proto.MarshalOptions{}.MarshalAppend(b, m)
		invariant.Assert(err == nil, "marshalling a message of raft: %v", err)
		return b
	}
	if m.Type != nil {
		b = appendNumber(b, fieldType, uint64(*m.Type))
	}
	b = appendOptional(b, fieldTo, m.To)
	b = appendOptional(b, fieldFrom, m.From)
	b = appendOptional(b, fieldTerm, m.Term)
	b = appendOptional(b, fieldLogTerm, m.LogTerm)
	b = appendOptional(b, fieldIndex, m.Index)
	for _, e := range m.Entries {
		b = appendEntry(b, e)
	}
	b = appendOptional(b, fieldCommit, m.Commit)
	if m.Reject != nil {
		b = appendNumber(b, fieldReject, protowire.EncodeBool(*m.Reject))
	}
	b = appendOptional(b, fieldRejectHint, m.RejectHint)
	if m.Context != nil {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldContext, protowire.BytesType), m.Context)
	}
	return appendOptional(b, fieldVote, m.Vote)
}

func appendEntry(b []byte, e *raftpb.Entry) []byte {
	b = protowire.AppendTag(b, fieldEntries, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(entrySize(e)))
	if e.Type != nil {
		b = appendNumber(b, fieldEntryType, uint64(*e.Type))
	}
	b = appendOptional(b, fieldEntryTerm, e.Term)
	b = appendOptional(b, fieldEntryIndex, e.Index)
	if e.Data != nil {
		b = protowire.AppendBytes(protowire.AppendTag(b, fieldEntryData, protowire.BytesType), e.Data)
	}
	return b
}

// entrySize is that of what appendEntry appends behind the length.
func entrySize(e *raftpb.Entry) (n int) {
	const tag = 1 // all of them are that short
	if e.Type != nil {
		n += tag + protowire.SizeVarint(uint64(*e.Type))
	}
	if e.Term != nil {
		n += tag + protowire.SizeVarint(*e.Term)
	}
	if e.Index != nil {
		n += tag + protowire.SizeVarint(*e.Index)
	}
	if e.Data != nil {
		n += tag + protowire.SizeBytes(len(e.Data))
	}
	return n
}

func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func appendOptional(b []byte, field protowire.Number, v *uint64) []byte {
	if v == nil {
		return b
	}
	return appendNumber(b, field, *v)
}

// received is a message with its numbers, in one piece of memory.
type received struct {
	message raftpb.Message
	kind    raftpb.MessageType
	reject  bool
	numbers [8]uint64
	used    int
}

// receivedEntry is the same for an entry.
type receivedEntry struct {
	entry       raftpb.Entry
	kind        raftpb.EntryType
	term, index uint64
}

// decodeMessage decodes a message, whose entries and context are parts of b.
func decodeMessage(b []byte) (*raftpb.Message, error) {
	if m, ok := decodePlain(b); ok {
		return m, nil
	}
	m := new(raftpb.Message)
	if err := proto.Unmarshal(b, m); err != nil {
		return nil, fmt.Errorf("decoding a message of raft: %w", err)
	}
	return m, nil
}

// decodePlain decodes a message that has nothing rare; ok is false for others, and
// for what is no message.
func decodePlain(b []byte) (_ *raftpb.Message, ok bool) {
	r := new(received)
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 || !r.number(field, v) {
				return nil, false
			}
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 || !r.bytes(field, v[:len(v):len(v)]) {
				return nil, false
			}
			b = b[n:]
		default:
			return nil, false
		}
	}
	return &r.message, true
}

// number takes a field; false if it is rare.
func (r *received) number(field protowire.Number, v uint64) bool {
	m := &r.message
	switch field {
	case fieldType:
		r.kind = raftpb.MessageType(v)
		m.Type = &r.kind
		return true
	case fieldReject:
		r.reject = protowire.DecodeBool(v)
		m.Reject = &r.reject
		return true
	}
	to := r.place(field)
	if to == nil || *to != nil || r.used == len(r.numbers) {
		return false
	}
	r.numbers[r.used] = v
	*to = &r.numbers[r.used]
	r.used++
	return true
}

// place is where the pointer to a number belongs, nil for an unknown one.
func (r *received) place(field protowire.Number) **uint64 {
	m := &r.message
	switch field {
	case fieldTo:
		return &m.To
	case fieldFrom:
		return &m.From
	case fieldTerm:
		return &m.Term
	case fieldLogTerm:
		return &m.LogTerm
	case fieldIndex:
		return &m.Index
	case fieldCommit:
		return &m.Commit
	case fieldRejectHint:
		return &m.RejectHint
	case fieldVote:
		return &m.Vote
	default:
		return nil
	}
}

// bytes takes a field; false if it is rare.
func (r *received) bytes(field protowire.Number, v []byte) bool {
	switch field {
	case fieldEntries:
		e, ok := decodeEntry(v)
		r.message.Entries = append(r.message.Entries, e)
		return ok
	case fieldContext:
		r.message.Context = v
		return true
	default:
		return false
	}
}

func decodeEntry(b []byte) (_ *raftpb.Entry, ok bool) {
	r := new(receivedEntry)
	e := &r.entry
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		var v uint64
		switch {
		case typ == protowire.VarintType && field != fieldEntryData:
			v, n = protowire.ConsumeVarint(b)
		case typ == protowire.BytesType && field == fieldEntryData:
			var data []byte
			data, n = protowire.ConsumeBytes(b)
			e.Data = data[:len(data):len(data)]
		default:
			return nil, false
		}
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		switch field {
		case fieldEntryType:
			r.kind = raftpb.EntryType(v)
			e.Type = &r.kind
		case fieldEntryTerm:
			r.term, e.Term = v, &r.term
		case fieldEntryIndex:
			r.index, e.Index = v, &r.index
		case fieldEntryData:
		default:
			return nil, false
		}
	}
	return e, true
}
