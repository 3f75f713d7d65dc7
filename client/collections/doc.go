// Package collections has a map and a queue over the store, with the types of the
// program that uses them: what reliable dictionaries and queues are elsewhere.
//
// A Dictionary is keys with a common prefix; each entry is a record of the store,
// which kvctl, watches and lists see like any other. A Queue is a first-in,
// first-out list with any number of producers and consumers: elements leave in
// exactly the order in which their transactions were committed, each once.
//
// Both take part in transactions: the methods that end in Tx work inside
// Client.Transact, so that an element can be taken and an entry changed in one
// step.
//
//	err := c.Transact(ctx, func(tx *client.Tx) error {
//		order, ok, err := orders.TryDequeueTx(tx)
//		if err != nil || !ok {
//			return err
//		}
//		return state.SetTx(tx, order.ID, "paid")
//	})
//
// Keys of one {hash tag} are in one group of the store. All of a queue is, under
// its name unless the name has a tag of its own; a dictionary is spread over all
// groups unless its name has one. Give both the same tag, as in "{shop}orders" and
// "{shop}state", to have them in one group: transactions over several groups work
// as well, and take longer.
//
// Where the answer to a write is lost, the methods without Tx find out what became
// of it from the key's history, and do it again where it was not done; an
// ErrUnknownOutcome of theirs says that there was no time for that. Set and Remove
// are no conditional writes and may return it at once; they may be repeated.
package collections
