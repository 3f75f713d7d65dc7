package pipelink

import api "kvstore/api/kvstore/v1"

const (
	tagTxnThen      = 3<<3 | typeBytes
	tagTxnOtherwise = 4<<3 | typeBytes

	// Depths in a frame: its operation, the transaction, its own operations, theirs.
	depthTxnOp   = 3
	depthTxnKind = depthTxnOp + 1

	// Where there are more than so many operations of fewer bytes, room for a put for
	// each is more memory than the generated code takes.
	fewTxnOps  = 64
	leastTxnOp = 16
)

// txnReader reads a transaction; what its operations need they share.
type txnReader struct {
	ops    []txnOp
	shared memory
}

// txnOp is an operation of a transaction with room for a put, as most are.
type txnOp struct {
	op  api.TransactionOp
	one api.TransactionOp_Put
	put put
}

// readTransaction decodes a transaction; false when the generated code has to.
func readTransaction(b []byte, q *api.TransactionRequest) bool {
	then, known := countRepeated(b, tagTxnThen)
	otherwise, _ := countRepeated(b, tagTxnOtherwise)
	n := then + otherwise
	if !known || n > fewTxnOps && n*leastTxnOp > len(b) {
		return false
	}
	list := make([]*api.TransactionOp, n)
	r := txnReader{make([]txnOp, n), memory{textRoom: textRoom(n), valueRoom: len(b)}}
	if then > 0 {
		q.Then = list[:0:then]
	}
	if otherwise > 0 {
		q.Otherwise = list[then:then:n]
	}
	m := message{b: b}
	for m.next() {
		var ok bool
		switch m.tag {
		case 1<<3 | typeBytes:
			ok = r.shared.text(&q.Namespace, &m)
		case 2<<3 | typeBytes:
			check := new(api.TransactionCheck)
			ok = readRarely(m.bytes, check, depthTxnOp)
			q.Checks = append(q.Checks, check)
		case tagTxnThen:
			ok = r.operation(m.bytes, &q.Then)
		case tagTxnOtherwise:
			ok = r.operation(m.bytes, &q.Otherwise)
		case 20<<3 | typeBytes:
			ok = r.shared.text(&q.RequestId, &m)
		default:
			return false
		}
		if !ok {
			return false
		}
	}
	return !m.bad
}

// operation decodes one of a list.
func (r *txnReader) operation(b []byte, list *[]*api.TransactionOp) bool {
	o := &r.ops[0]
	r.ops = r.ops[1:]
	*list = append(*list, &o.op)
	return r.put(b, o) || readRarely(b, &o.op, depthTxnOp)
}

// put decodes an operation that is a put and nothing else.
func (r *txnReader) put(b []byte, o *txnOp) bool {
	m := message{b: b}
	if !m.next() || m.tag != 1<<3|typeBytes || len(m.b) > 0 {
		return false
	}
	o.one.Put, o.op.Op = &o.put.q, &o.one
	return readPut(m.bytes, &o.put, &r.shared, depthTxnKind)
}
