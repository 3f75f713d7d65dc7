package pipelink

import (
	"google.golang.org/protobuf/encoding/protowire"

	api "kvstore/api/kvstore/v1"
)

const (
	typeVarint = uint64(protowire.VarintType)
	typeBytes  = uint64(protowire.BytesType)
)

// textRoom is how much memory texts of so many keys share.
func textRoom(keys int) int { return min(32+32*keys, 4<<10) }

// readGet decodes a get; false when the generated code has to.
func readGet(b []byte, q *api.GetRequest, o *memory) bool {
	m := message{b: b}
	for ok := true; m.next(); {
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = o.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			ok = o.text(&q.Key, &m)
		case 3<<3 | typeVarint:
			q.Consistency = api.Consistency(int32(m.num))
		case 4<<3 | typeVarint:
			q.MaxStalenessMs = int64(m.num)
		case 5<<3 | typeVarint:
			q.KeysOnly = m.num != 0
		case 6<<3 | typeVarint:
			q.AtRevision = m.num
		case 50<<3 | typeVarint:
			q.AtTimeMs = int64(m.num)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}

// put is one with room for its checksum.
type put struct {
	q   api.PutRequest
	sum uint32
}

// readPut decodes a put that is depth messages deep; false when the generated code
// has to.
func readPut(b []byte, p *put, o *memory, depth int) bool {
	q := &p.q
	m := message{b: b}
	for ok := true; m.next(); {
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = o.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			ok = o.text(&q.Key, &m)
		case 3<<3 | typeBytes:
			q.Value = o.value(m.bytes)
		case 4<<3 | typeBytes:
			ok = o.text(&q.ContentType, &m)
		case 5<<3 | typeBytes:
			ok = o.text(&q.Encoding, &m)
		case 6<<3 | typeVarint:
			p.sum = uint32(m.num)
			q.Checksum = &p.sum
		case 7<<3 | typeVarint:
			q.TtlSeconds = int64(m.num)
		case 8<<3 | typeVarint:
			q.ExpiresAtMs = int64(m.num)
		case 11<<3 | typeBytes:
			ok = readCondition(m.bytes, &q.Condition, depth+1)
		case 20<<3 | typeBytes:
			ok = o.text(&q.RequestId, &m)
		case 40<<3 | typeBytes:
			ok = o.text(&q.Lease, &m)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}

// readCondition decodes a condition, unless there is one that it would be merged with.
func readCondition(b []byte, c **api.Condition, depth int) bool {
	if *c != nil {
		return false
	}
	*c = new(api.Condition)
	return readRarely(b, *c, depth)
}

// readDelete decodes a delete; false when the generated code has to.
func readDelete(b []byte, q *api.DeleteRequest, o *memory, depth int) bool {
	m := message{b: b}
	for m.next() {
		var ok bool
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = o.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			ok = o.text(&q.Key, &m)
		case 3<<3 | typeBytes:
			ok = readCondition(m.bytes, &q.Condition, depth+1)
		case 20<<3 | typeBytes:
			ok = o.text(&q.RequestId, &m)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}

// readBatchPut decodes a batch of puts; false when the generated code has to.
func readBatchPut(b []byte, q *api.BatchPutRequest) bool {
	n, ok := countRepeated(b, 2<<3|typeBytes)
	if !ok {
		return false
	}
	puts := make([]put, n)
	q.Items = make([]*api.PutRequest, 0, n)
	o := memory{textRoom: textRoom(n), valueRoom: len(b)}
	m := message{b: b}
	for m.next() {
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = o.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			p := &puts[len(q.Items)]
			ok = readPut(m.bytes, p, &o, 3)
			q.Items = append(q.Items, &p.q)
		case 3<<3 | typeVarint:
			q.Atomic = m.num != 0
		case 20<<3 | typeBytes:
			ok = o.text(&q.RequestId, &m)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}

// readBatchGet decodes a batch of gets; false when the generated code has to.
func readBatchGet(b []byte, q *api.BatchGetRequest) bool {
	n, ok := countRepeated(b, 2<<3|typeBytes)
	if !ok {
		return false
	}
	if n > 0 {
		q.Keys = make([]string, 0, n)
	}
	o := memory{textRoom: min(len(b), textRoom(n))}
	m := message{b: b}
	for m.next() {
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = o.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			q.Keys = append(q.Keys, "")
			ok = o.text(&q.Keys[len(q.Keys)-1], &m)
		case 3<<3 | typeVarint:
			q.Consistency = api.Consistency(int32(m.num))
		case 4<<3 | typeVarint:
			q.MaxStalenessMs = int64(m.num)
		case 5<<3 | typeVarint:
			q.KeysOnly = m.num != 0
		case 50<<3 | typeVarint:
			q.AtRevision = m.num
		case 51<<3 | typeVarint:
			q.AtTimeMs = int64(m.num)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}
