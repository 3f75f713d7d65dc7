package client

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of TransactionRequest, TransactionOp and TransactionResult.
const (
	fieldTxnChecks    protowire.Number = 2
	fieldTxnThen      protowire.Number = 3
	fieldTxnOtherwise protowire.Number = 4

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
			b = t.encodeCheck(b, fieldTxnCheck, &o.check)
		}
		b = endMessage(b, at)
	}
	return b
}

// decode reads a TransactionResponse.
func (t *Txn) decode(b []byte, r *TxnResult) error {
	var results [][]byte
	err := eachField(b, "TransactionResponse", func(f field) error {
		switch f.number {
		case 1:
			r.Succeeded = f.num != 0
		case 2:
			r.Revision = f.num
		case 3:
			results = append(results, f.bytes)
		}
		return nil
	})
	if err != nil {
		return err
	}
	ops := t.then
	if !r.Succeeded {
		ops = t.otherwise
	}
	if len(results) != len(ops) {
		return malformed("TransactionResponse with another number of results")
	}
	r.Results = make([]OpResult, len(ops))
	for i := range ops {
		if err := r.Results[i].decode(results[i], &ops[i]); err != nil {
			return err
		}
	}
	return nil
}

// decode reads a TransactionResult of o.
func (r *OpResult) decode(b []byte, o *Op) error {
	err := eachField(b, "TransactionResult", func(f field) error {
		switch f.number {
		case 1:
			r.Err = decodeStatus(f.bytes)
		case 2:
			return decodePut(f.bytes, &r.Put)
		case 3:
			return decodeDelete(f.bytes, &r.Delete)
		case 4:
			return decodeRecord(f.bytes, o.key, &r.Record, nil)
		}
		return nil
	})
	if err == nil && r.Err == nil && o.kind == opGet {
		r.Err = r.Record.verify(o.get.keysOnly)
	}
	return err
}
