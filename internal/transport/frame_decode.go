package transport

import (
	"bytes"
	"errors"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// errFrame: a frame that protobuf would not take either.
var errFrame = errors.New("not an encoded frame")

// decodeFrame decodes a frame and copies what it keeps: each message of raft whole,
// once, so that its entries may be used where they lie. Names that are those of the
// frame before, which may be nil, are not copied again.
func decodeFrame(body []byte, before *api.Frame) (*api.Frame, error) {
	f := new(api.Frame)
	for len(body) > 0 {
		field, typ, n := protowire.ConsumeTag(body)
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		rest := body[n:]
		if n = protowire.ConsumeFieldValue(field, typ, rest); n < 0 {
			return nil, protowire.ParseError(n)
		}
		body = rest[n:]
		var err error
		switch value := rest[:n]; typ {
		case protowire.VarintType:
			v, _ := protowire.ConsumeVarint(value)
			frameNumber(f, field, v)
		case protowire.BytesType:
			v, _ := protowire.ConsumeBytes(value)
			err = frameBytes(f, field, v, before)
		default: // of a later version
		}
		if err != nil {
			return nil, err
		}
	}
	return f, nil
}

func frameNumber(f *api.Frame, field protowire.Number, v uint64) {
	switch field {
	case clockField:
		f.ClockMs = int64(v)
	case versionField:
		f.FormatVersion = uint32(v)
	case recoveryField:
		f.RecoveryEpoch = v
	default: // of a later version
	}
}

func frameBytes(f *api.Frame, field protowire.Number, v []byte, before *api.Frame) (err error) {
	switch field {
	case messagesField:
		m, err := decodeMessage(v)
		f.Messages = append(f.Messages, m)
		return err
	case clusterField:
		f.ClusterId, err = name(v, before.GetClusterId())
	case fromField:
		f.FromNode, err = name(v, before.GetFromNode())
	case toField:
		f.ToNode, err = name(v, before.GetToNode())
	default: // of a later version
	}
	return err
}

// name is v as a string, known if that is the same.
func name(v []byte, known string) (string, error) {
	switch {
	case string(v) == known:
		return known, nil
	case !utf8.Valid(v):
		return "", errFrame
	default:
		return string(v), nil
	}
}

// raftInside is a message with its body, in one piece of memory.
type raftInside struct {
	message api.GroupMessage
	raft    api.GroupMessage_Raft
}

func decodeMessage(b []byte) (*api.GroupMessage, error) {
	if m, ok := decodeRaft(b); ok {
		return m, nil
	}
	m := new(api.GroupMessage)
	return m, proto.Unmarshal(b, m)
}

// decodeRaft decodes a message that is a group and a message of raft, nothing else.
func decodeRaft(b []byte) (_ *api.GroupMessage, ok bool) {
	r := new(raftInside)
	var raft []byte
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, false
		}
		b = b[n:]
		switch {
		case field == groupField && typ == protowire.VarintType:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			r.message.Group = uint32(v)
		case field == raftField && typ == protowire.BytesType:
			raft, n = protowire.ConsumeBytes(b)
			r.message.Body = &r.raft
		default:
			return nil, false
		}
		if n < 0 {
			return nil, false
		}
		b = b[n:]
	}
	r.raft.Raft = bytes.Clone(raft)
	return &r.message, true
}
