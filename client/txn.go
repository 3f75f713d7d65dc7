package client

import (
	"context"
	"errors"
	"slices"
	"strconv"
)

// Txn is a transaction on keys of any groups: checks, and what to do when all of
// them hold and when one does not. It is built by one goroutine and committed
// once.
//
//	res, err := c.Txn(ctx).
//		If(client.Key("{42}stock").Version().Eq(7)).
//		Then(client.OpPut("{42}stock", left), client.OpDelete("{42}hold")).
//		Else(client.OpGet("{42}stock")).
//		Commit()
//
// The checks are judged and the operations executed at one moment: all or nothing,
// isolated from every other write. Gets see the state before the transaction's own
// writes. Keys of one group, which {braces} keep together in a namespace, take one
// log entry; several groups are committed in two phases, and one that only reads
// locks nothing.
type Txn struct {
	c               *Client
	ctx             context.Context
	requestID       string
	checks          []Check
	then, otherwise []Op
	fence           *Fence
}

// Txn begins a transaction, which Commit sends. ctx is Commit's.
func (c *Client) Txn(ctx context.Context) *Txn { return &Txn{c: c, ctx: ctx} }

// RequestID names the transaction, in place of an id of this package's making: the
// same id again with the same transaction is not executed again, and answers the
// same.
func (t *Txn) RequestID(id string) *Txn {
	t.requestID = id
	return t
}

// If adds checks; without any, Then is taken.
func (t *Txn) If(checks ...Check) *Txn {
	t.checks = append(t.checks, checks...)
	return t
}

// Then adds what is executed when all checks hold.
func (t *Txn) Then(ops ...Op) *Txn {
	t.then = append(t.then, ops...)
	return t
}

// Else adds what is executed when a check does not hold.
func (t *Txn) Else(ops ...Op) *Txn {
	t.otherwise = append(t.otherwise, ops...)
	return t
}

// Fence lets nothing of the transaction happen, whatever the checks say, unless the
// lock is held that the fence is of.
func (t *Txn) Fence(f Fence) *Txn {
	t.fence = &f
	return t
}

// Check compares a key with what it should be.
type Check struct {
	namespace string
	key       string
	condition Condition
}

// KeyRef names a key in a check.
type KeyRef struct{ namespace, name string }

// Key begins a check of a key.
func Key(name string) KeyRef { return KeyRef{name: name} }

// In names the key's namespace, where it is not the client's.
func (k KeyRef) In(namespace string) KeyRef { return KeyRef{namespace, k.name} }

// Is checks a condition that was built elsewhere.
func (k KeyRef) Is(c Condition) Check { return Check{k.namespace, k.name, c} }

// Exists checks that the key exists.
func (k KeyRef) Exists() Check { return k.Is(Condition{MustExist: true}) }

// Absent checks that the key does not exist.
func (k KeyRef) Absent() Check { return k.Is(Condition{MustNotExist: true}) }

// NumberRef is a number of a key's record.
type NumberRef struct {
	key  KeyRef
	make func(uint64) Condition
}

// Version is the key's version, 0 when it does not exist.
func (k KeyRef) Version() NumberRef {
	return NumberRef{k, func(v uint64) Condition { return Condition{Version: &v} }}
}

// Revision is the key's revision, 0 when it does not exist.
func (k KeyRef) Revision() NumberRef {
	return NumberRef{k, func(r uint64) Condition { return Condition{Revision: &r} }}
}

// CreatedRevision is the revision at which the key was created.
func (k KeyRef) CreatedRevision() NumberRef {
	return NumberRef{k, func(r uint64) Condition { return Condition{Created: &r} }}
}

// AttachedTo checks that the key is attached to a lease.
func (k KeyRef) AttachedTo(lease string) Check { return k.Is(Condition{Lease: lease}) }

// Eq checks that the number is n.
func (n NumberRef) Eq(v uint64) Check { return n.key.Is(n.make(v)) }

// ValueRef is a key's value.
type ValueRef struct{ key KeyRef }

// Value is the key's value.
func (k KeyRef) Value() ValueRef { return ValueRef{k} }

// Eq checks that the key exists with exactly this value.
func (v ValueRef) Eq(value []byte) Check {
	return v.key.Is(Condition{ValueEquals: value, HasValueEquals: true})
}

// Op is an operation of a transaction.
type Op struct {
	kind opKind
	key  string
	// Of what follows one is set, by kind. Copies share it.
	put   *putCall
	del   *deleteCall
	touch *touchCall
	get   *readCall
	check *Check // of a check in a list
}

type opKind uint8

const (
	opPut opKind = iota + 1
	opDelete
	opTouch
	opGet
	opCheck
)

// OpPut writes a key, with the options of Client.Put. When a condition among them
// does not hold, nothing of the transaction happens.
func OpPut(key string, value []byte, opts ...PutOption) Op {
	o := Op{kind: opPut, key: key, put: &putCall{item: PutItem{Key: key, Value: value}}}
	for _, opt := range opts {
		opt.applyPut(o.put)
	}
	return o
}

// OpDelete deletes a key, with the options of Client.Delete. When a condition
// among them does not hold, nothing of the transaction happens.
func OpDelete(key string, opts ...DeleteOption) Op {
	o := Op{kind: opDelete, key: key, del: &deleteCall{item: DeleteItem{Key: key}}}
	for _, opt := range opts {
		opt.applyDelete(o.del)
	}
	return o
}

// OpTouch changes a deadline, as Touch does; its result is that of a put.
func OpTouch(key string, opts ...TouchOption) Op {
	o := Op{kind: opTouch, key: key, touch: &touchCall{item: touchItem{key: key}}}
	for _, opt := range opts {
		opt.applyTouch(o.touch)
	}
	return o
}

// OpGet reads a key as it was before the transaction's own writes; of the options
// InNamespace and KeysOnly have a meaning.
func OpGet(key string, opts ...GetOption) Op {
	o := Op{kind: opGet, key: key, get: new(readCall)}
	for _, opt := range opts {
		opt.applyGet(o.get)
	}
	return o
}

// OpCheck lets nothing of the transaction happen unless a check holds, where
// Txn.If chooses between two lists.
func OpCheck(check Check) Op { return Op{kind: opCheck, key: check.key, check: &check} }

func (o *Op) namespace() string {
	switch o.kind {
	case opPut:
		return o.put.namespace
	case opDelete:
		return o.del.namespace
	case opTouch:
		return o.touch.namespace
	case opGet:
		return o.get.namespace
	case opCheck:
		return o.check.namespace
	}
	return ""
}

// TxnResult is what a transaction came to.
type TxnResult struct {
	// Succeeded says that all checks held and Then was executed; else the
	// operations of Else were.
	Succeeded bool
	// Revision is that of all writes; 0 when nothing was written.
	Revision uint64
	// Results are those of the operations that were executed, in their order.
	Results []OpResult
}

// OpResult is the result of one operation; one of Put (also of a touch), Delete and
// Record is set, by its kind.
type OpResult struct {
	Put    PutResult
	Delete DeleteResult
	Record Record
	// Err is a get's own failure, ErrNotFound for a key that is not there.
	Err error
}

// Get returns what the i-th operation read.
func (r *TxnResult) Get(i int) (Record, error) { return r.Results[i].Record, r.Results[i].Err }

// Put returns what the i-th operation wrote.
func (r *TxnResult) Put(i int) PutResult { return r.Results[i].Put }

// Delete returns what the i-th operation deleted.
func (r *TxnResult) Delete(i int) DeleteResult { return r.Results[i].Delete }

// Commit executes the transaction. It fails with ErrConditionFailed when a
// condition of an operation (not a check) does not hold, naming its position, and
// with ErrUnknownOutcome when the transaction was sent, its answer lost, and ctx
// ended before it could be found out (RequestIDOf). One that only reads is repeated on
// other nodes instead, as every read is.
func (t *Txn) Commit() (*TxnResult, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	o := newOperation(fieldOpTransaction, t.writes())
	defer o.release()
	o.namespace, o.key = t.first()
	if o.requestID = t.requestID; o.write {
		t.requestID = o.name(t.c, t.requestID)
	}
	o.body = t.encode(o.body[:0])
	if err := t.c.checkMessage(len(o.body)); err != nil {
		return nil, err
	}
	answer, err := t.c.do(t.ctx, o)
	if err != nil {
		return nil, err
	}
	r := new(TxnResult)
	if err := t.decode(answer, r); err != nil {
		return nil, unreadable(o.write, err)
	}
	if err := t.failure(r); err != nil {
		return nil, err
	}
	return r, nil
}

// writes reports whether one of the lists writes something.
func (t *Txn) writes() bool {
	isWrite := func(o Op) bool { return o.kind != opGet }
	return slices.ContainsFunc(t.then, isWrite) || slices.ContainsFunc(t.otherwise, isWrite)
}

// check refuses what every server would refuse.
func (t *Txn) check() error {
	for i := range t.checks {
		if err := t.c.checkKey(t.checks[i].key); err != nil {
			return err
		}
	}
	for _, ops := range [...][]Op{t.then, t.otherwise} {
		for i := range ops {
			if err := t.c.checkOp(&ops[i]); err != nil {
				return err
			}
		}
	}
	if len(t.checks)+len(t.then)+len(t.otherwise) == 0 {
		return newError(CodeInvalidArgument, "the transaction is empty")
	}
	return nil
}

func (c *Client) checkOp(o *Op) error {
	switch {
	case o.kind == opPut:
		return c.checkPut(&o.put.item)
	case o.kind == opTouch:
		return c.checkTouch(&o.touch.item)
	case o.kind == opGet && (o.get.at != (moment{}) || o.get.consistency != Linearizable):
		return newError(CodeInvalidArgument, "a get in a transaction takes neither a revision nor a staleness", "key", quoteKey(o.key))
	case o.kind == 0:
		return newError(CodeInvalidArgument, "an operation of a transaction is made by OpPut, OpDelete, OpTouch, OpGet or OpCheck")
	}
	return c.checkKey(o.key)
}

// space is a namespace, the client's when it is not named.
func (t *Txn) space(name string) string {
	if name == "" {
		return t.c.cfg.Namespace
	}
	return name
}

// first is the key by which the group is found.
func (t *Txn) first() (namespace, key string) {
	if len(t.checks) > 0 {
		return t.space(t.checks[0].namespace), t.checks[0].key
	}
	for _, ops := range [...][]Op{t.then, t.otherwise} {
		if len(ops) > 0 {
			return t.space(ops[0].namespace()), ops[0].key
		}
	}
	return t.c.cfg.Namespace, ""
}

// failure is what kept the transaction from being executed: a condition that does not
// hold, or an expiry that has passed.
func (t *Txn) failure(r *TxnResult) error {
	ops := t.then
	if !r.Succeeded {
		ops = t.otherwise
	}
	for i := range r.Results {
		if r.Results[i].Err == nil {
			continue // most; looking for e costs memory
		}
		var e *Error
		if ops[i].kind == opGet || !errors.As(r.Results[i].Err, &e) || e.Code == CodeBatchAborted {
			continue
		}
		at := *e
		at.Details = withEntry(e.Details, "item", strconv.Itoa(i))
		return &at
	}
	return nil
}
