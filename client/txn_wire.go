package client

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of TransactionRequest, TransactionResponse and TransactionOp.
const (
	fieldTxnChecks    protowire.Number = 2
	fieldTxnThen      protowire.Number = 3
	fieldTxnOtherwise protowire.Number = 4

	fieldTxnResults protowire.Number = 3 // TransactionResponse

	fieldTxnPut    protowire.Number = 1
	fieldTxnDelete protowire.Number = 2
	fieldTxnGet    protowire.Number = 3
	fieldTxnTouch  protowire.Number = 30
	fieldTxnCheck  protowire.Number = 40
)

// encode appends the operation of a frame.
func (t *Txn) encode(b []byte) []byte {
	b, mark := beginMessage(b, fieldOpTransaction)
	for i := range t.checks {
		b = t.encodeCheck(b, fieldTxnChecks, &t.checks[i])
	}
	b = t.encodeOps(b, fieldTxnThen, t.then)
	b = t.encodeOps(b, fieldTxnOtherwise, t.otherwise)
	b = appendFence(b, 40, t.fence)
	b = appendString(b, fieldRequestID, t.requestID)
	return endMessage(b, mark)
}

func (t *Txn) encodeCheck(b []byte, field protowire.Number, c *Check) []byte {
	b, mark := beginMessage(b, field)
	b = appendString(b, 1, t.space(c.namespace))
	b = appendString(b, 2, c.key)
	b = appendCondition(b, 3, &c.condition)
	return endMessage(b, mark)
}

func (t *Txn) encodeOps(b []byte, field protowire.Number, ops []Op) []byte {
	for i := range ops {
		o := &ops[i]
		space := t.space(o.namespace())
		var at int
		b, at = beginMessage(b, field)
		switch o.kind {
		case opPut:
			b = appendPut(b, fieldTxnPut, space, &o.put.item)
		case opDelete:
			b = appendDelete(b, fieldTxnDelete, space, &o.del.item)
		case opTouch:
			b = appendTouch(b, fieldTxnTouch, space, &o.touch.item)
		case opGet:
			b = appendGet(b, fieldTxnGet, space, o.key, &readCall{keysOnly: o.get.keysOnly})
		case opCheck:
			b = t.encodeCheck(b, fieldTxnCheck, o.check)
		}
		b = endMessage(b, at)
	}
	return b
}

// decode reads a TransactionResponse. How many results there are, and of which list,
// is known only at its end.
func (t *Txn) decode(b []byte, r *TxnResult) error {
	n, err := r.decodeHead(b)
	if err != nil {
		return err
	}
	ops := t.then
	if !r.Succeeded {
		ops = t.otherwise
	}
	if n != len(ops) {
		return malformed("TransactionResponse with another number of results")
	}
	r.Results = make([]OpResult, n)
	for i := 0; i < n; {
		f, rest, _ := nextField(b) // as before
		if b = rest; f.number != fieldTxnResults {
			continue
		}
		if err := r.Results[i].decode(f.bytes, &ops[i]); err != nil {
			return err
		}
		i++
	}
	return nil
}

// decodeHead reads all but the results, and counts them.
func (r *TxnResult) decodeHead(b []byte) (results int, err error) {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return 0, malformed("TransactionResponse")
		}
		switch f.number {
		case 1:
			r.Succeeded = f.num != 0
		case 2:
			r.Revision = f.num
		case fieldTxnResults:
			results++
		}
		b = rest
	}
	return results, nil
}

// decode reads a TransactionResult of o.
func (r *OpResult) decode(b []byte, o *Op) error {
	for len(b) > 0 {
		f, rest, ok := nextField(b)
		if !ok {
			return malformed("TransactionResult")
		}
		if err := r.decodeField(f, o.key); err != nil {
			return err
		}
		b = rest
	}
	if r.Err == nil && o.kind == opGet {
		r.Err = r.Record.verify(o.get.keysOnly)
	}
	return nil
}

func (r *OpResult) decodeField(f field, key string) error {
	switch f.number {
	case 1:
		r.Err = decodeStatus(f.bytes)
	case 2:
		return decodePut(f.bytes, &r.Put)
	case 3:
		return decodeDelete(f.bytes, &r.Delete)
	case 4:
		return decodeRecord(f.bytes, key, &r.Record, nil)
	}
	return nil
}
