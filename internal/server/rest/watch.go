package rest

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"time"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/guard"
	"kvstore/internal/router"
	"kvstore/internal/server/status"
	"kvstore/internal/watch"
)

const (
	// quietFor is how long a watch may say nothing before a comment is sent.
	quietFor = 15 * time.Second
	// eventGrace bounds how long the client may take to receive something.
	eventGrace = 60 * time.Second
)

// watchKeys sends server-sent events: put and delete, and at last end with a
// problem. The id of an event is the token to go on with, which a browser sends
// back by itself (Last-Event-ID). Of the events of one revision only the last has
// an id, so that nobody goes on in the middle of a transaction; comments tell
// progress, with an id too. Errors before the first byte are problem documents.
func (s *Server) watchKeys(q *request) error {
	create, err := watchRequest(q)
	if err != nil {
		return err
	}
	if s.o.Watches == nil {
		return fault.New(fault.Unsupported, "this server has no watches")
	}
	ctx := router.WithIdentity(q.ctx(), guard.Identity(q.ctx()))
	st, err := s.o.Watches.Open(ctx)
	if err != nil {
		return err
	}
	defer st.Close()
	st.Create(ctx, create)
	first, err := nextMessage(ctx, st)
	if err != nil {
		return err
	}
	if len(first.GetEnded()) > 0 && len(first.GetCreated()) == 0 {
		return status.FromItem(first.GetEnded()[0].GetStatus())
	}
	h := q.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no")
	q.w.WriteHeader(http.StatusOK)
	if q.r.Method == http.MethodHead {
		return nil
	}
	e := &eventStream{w: q.w, control: http.NewResponseController(q.w), keysOnly: create.GetKeysOnly()}
	e.run(ctx, st, first)
	return nil
}

func watchRequest(q *request) (*api.WatchCreate, error) {
	p := q.query
	create := &api.WatchCreate{Namespace: p.text("namespace"), Start: p.text("start"), End: p.text("end")}
	exact, err := p.flag("exact")
	if err != nil {
		return nil, err
	}
	if exact {
		create.Key = q.param
	} else {
		create.Prefix = q.param
	}
	after, err := p.number("after_revision", 64)
	if err != nil {
		return nil, err
	}
	if after != nil {
		create.AfterRevision = *after
	}
	if create.Previous, err = p.flag("previous"); err != nil {
		return nil, err
	}
	if create.KeysOnly, err = p.flag("keys_only"); err != nil {
		return nil, err
	}
	if create.Tags, err = tagFilter(url.Values(p)["tag"]); err != nil {
		return nil, err
	}
	token := p.text("token")
	if last := q.r.Header.Get("Last-Event-ID"); last != "" {
		token, create.AfterRevision = last, 0 // where this client is now
	}
	if token == "" {
		return create, nil
	}
	if create.Token, err = base64.RawURLEncoding.DecodeString(token); err != nil {
		return nil, fault.New(fault.InvalidToken, "the token, or Last-Event-ID, is not one of a watch", "actual", clip(token))
	}
	return create, nil
}

func nextMessage(ctx context.Context, st *watch.Stream) (*api.WatchResponse, error) {
	m, err := st.NextUntil(ctx)
	if err != nil {
		return nil, err
	}
	return watch.Decode(m)
}

// eventStream writes what a watch is told.
type eventStream struct {
	w        http.ResponseWriter
	control  *http.ResponseController
	keysOnly bool
	out      bytes.Buffer
}

// run writes until the watch ends or the client goes.
func (e *eventStream) run(ctx context.Context, st *watch.Stream, m *api.WatchResponse) {
	for {
		if m == nil {
			e.out.WriteString(":\n\n")
		} else if ended := e.add(m); ended {
			_ = e.flush() // the client is gone: nobody to tell
			return
		}
		if e.flush() != nil {
			return
		}
		var err error
		if m, err = nextOrQuiet(ctx, st); err != nil {
			if ctx.Err() == nil {
				e.end(problemOf(err), nil)
				_ = e.flush() // as above
			}
			return
		}
	}
}

// nextOrQuiet returns nil when nothing is to be told for a while.
func nextOrQuiet(ctx context.Context, st *watch.Stream) (*api.WatchResponse, error) {
	quiet, cancel := context.WithTimeout(ctx, quietFor)
	defer cancel()
	m, err := nextMessage(quiet, st)
	if err != nil && ctx.Err() == nil && quiet.Err() != nil && st.Cause() == nil {
		return nil, nil
	}
	return m, err
}

// add writes a message and reports whether it was the last.
func (e *eventStream) add(m *api.WatchResponse) (ended bool) {
	for _, c := range m.GetCreated() {
		e.comment("watching", c.GetRevision(), c.GetToken())
	}
	for _, b := range m.GetBatches() {
		for i, ev := range b.GetEvents() {
			whole := i+1 == len(b.GetEvents()) || b.GetEvents()[i+1].GetRecord().GetRevision() != ev.GetRecord().GetRevision()
			e.event(ev, whole && (i+1 < len(b.GetEvents()) || !b.GetFragment()), b)
		}
	}
	for _, p := range m.GetProgress() {
		e.comment("progress", p.GetRevision(), p.GetToken())
	}
	for _, end := range m.GetEnded() {
		e.end(problemOf(status.FromItem(end.GetStatus())), end.GetToken())
		return true
	}
	return false
}

// watchEvent is the data of an event.
type watchEvent struct {
	Type     string   `json:"type"`
	Revision revision `json:"revision"`
	Key      string   `json:"key"`
	Reason   string   `json:"reason,omitempty"`
	Record   *record  `json:"record,omitempty"`
	Previous *record  `json:"previous,omitempty"`
}

func (e *eventStream) event(ev *api.WatchEvent, whole bool, b *api.WatchBatch) {
	rec := ev.GetRecord()
	data := watchEvent{Type: "put", Revision: revision(rec.GetRevision()), Key: rec.GetKey(), Reason: ev.GetReason()}
	if ev.GetType() == api.WatchEvent_DELETE {
		data.Type = "delete"
	} else {
		r := listed(rec, e.keysOnly)
		data.Record = &r
	}
	if old := ev.GetPrevious(); old != nil {
		r := listed(old, e.keysOnly || len(old.GetValue()) == 0 && old.GetSize() > 0)
		data.Previous = &r
	}
	if whole {
		e.id(watch.TokenAt(b, rec.GetRevision()))
	}
	e.data(data.Type, data)
}

func (e *eventStream) end(p problem, token []byte) {
	if len(token) > 0 {
		e.id(token)
	}
	e.data("end", p)
}

func (e *eventStream) data(name string, v any) {
	body, err := encodeJSON(v) // ends with a newline and has no other
	if err != nil {
		body = []byte("{}\n") // never: strings and numbers
	}
	fmt.Fprintf(&e.out, "event: %s\ndata: %s\n", name, body)
}

func (e *eventStream) id(token []byte) {
	fmt.Fprintf(&e.out, "id: %s\n", base64.RawURLEncoding.EncodeToString(token))
}

// comment dispatches no event; its id counts.
func (e *eventStream) comment(what string, rev uint64, token []byte) {
	fmt.Fprintf(&e.out, ": %s %d\n", what, rev)
	e.id(token)
	e.out.WriteByte('\n')
}

func (e *eventStream) flush() error {
	// Not every ResponseWriter has deadlines; the server's own ones remain.
	_ = e.control.SetWriteDeadline(time.Now().Add(eventGrace))
	_, err := e.w.Write(e.out.Bytes())
	e.out.Reset()
	if err != nil {
		return err
	}
	return e.control.Flush()
}
