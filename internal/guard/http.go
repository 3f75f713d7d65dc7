package guard

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"time"

	"kvstore/internal/fault"
	"kvstore/internal/server/status"
)

// Handler serves one matched HTTP route. It returns an error when it has
// written nothing; the guard then has it written as a problem document.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Route is what the guard must know of a matched HTTP request.
type Route struct {
	// Method names the operation in metrics and logs ("Put").
	Method string
	// MaxBody is the largest body the route reads, in bytes.
	MaxBody int64
	// Open routes (health) pass without authentication and limits.
	Open bool
	// Stream routes answer for as long as their client listens: they have no
	// deadline and count as a stream, not as a request.
	Stream bool
	Handle Handler
}

// writeGrace is added to a request's deadline for sending the answer.
const writeGrace = 60 * time.Second

// HTTP passes r through the chain to route; fail writes an error.
func (g *Guard) HTTP(w http.ResponseWriter, r *http.Request, route Route, fail func(http.ResponseWriter, *http.Request, error)) {
	start := time.Now()
	g.o.Metrics.InFlight(route.Method, 1)
	out := &recorder{ResponseWriter: w}
	var err error
	defer func() {
		p := recover()
		if p == http.ErrAbortHandler { //nolint:errorlint // net/http's own sentinel, compared as documented
			g.o.Metrics.InFlight(route.Method, -1)
			panic(p)
		}
		if p != nil {
			err = g.Recovered(route.Method, p)
		}
		g.o.Metrics.InFlight(route.Method, -1)
		begun := out.status != 0
		g.finishHTTP(out, r, route.Method, start, err, fail)
		if p != nil && begun {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
	}()
	err = g.serveHTTP(out, r, route)
}

func (g *Guard) serveHTTP(w http.ResponseWriter, r *http.Request, route Route) error {
	ctx := r.Context()
	if route.Open {
		return route.Handle(w, r)
	}
	ctx, err := g.authenticate(ctx, httpCredentials(r, route.Method))
	if err != nil {
		return err
	}
	if err := g.refusal(route.Method); err != nil {
		return err
	}
	if route.Stream {
		if err := g.streams.acquire(ctx, 1, 0); err != nil {
			return err
		}
		defer g.streams.release(1, 0)
		return route.Handle(w, r.WithContext(ctx))
	}
	asked, err := timeoutOf(r)
	if err != nil {
		return err
	}
	ctx, cancel := g.withDeadline(ctx, asked)
	defer cancel()
	deadline, _ := ctx.Deadline()
	// Not every ResponseWriter has deadlines; the server's own ones remain.
	_ = http.NewResponseController(w).SetWriteDeadline(deadline.Add(writeGrace))
	bytes := bodyBytes(r, route.MaxBody)
	if err := g.limit.acquire(ctx, 1, bytes); err != nil {
		return err
	}
	defer g.Release(1, bytes)
	return route.Handle(w, r.WithContext(ctx))
}

func (g *Guard) finishHTTP(w *recorder, r *http.Request, method string, start time.Time, err error,
	fail func(http.ResponseWriter, *http.Request, error)) {
	var code fault.Code
	if err != nil {
		code = status.Fault(err).Code
		g.report(method, err)
		if w.status == 0 {
			fail(w, r, err)
		}
	}
	if !endless[method] || w.status >= http.StatusBadRequest {
		g.o.Metrics.Observe(method, code, time.Since(start))
	}
	g.o.Metrics.Bytes(int(max(r.ContentLength, 0)), int(w.bytes))
}

// TimeoutHeader and TimeoutQuery name how long a caller waits, in milliseconds.
const (
	TimeoutHeader = "X-Kvstore-Timeout-Ms"
	TimeoutQuery  = "timeout_ms"
)

func timeoutOf(r *http.Request) (time.Duration, error) {
	text := r.Header.Get(TimeoutHeader)
	if q := r.URL.Query().Get(TimeoutQuery); q != "" {
		text = q
	}
	if text == "" {
		return 0, nil
	}
	ms, err := strconv.ParseInt(text, 10, 64)
	if err != nil || ms <= 0 || ms > int64(24*time.Hour/time.Millisecond) {
		return 0, fault.New(fault.InvalidArgument, "the timeout must be a positive number of milliseconds",
			"parameter", TimeoutQuery, "actual", text)
	}
	return time.Duration(ms) * time.Millisecond, nil
}

// bodyBytes returns what r's body may take in memory: what it says, or the
// most the route reads when it does not say.
func bodyBytes(r *http.Request, limit int64) int64 {
	if r.ContentLength >= 0 {
		return min(r.ContentLength, limit)
	}
	return limit
}

func httpCredentials(r *http.Request, method string) Credentials {
	c := Credentials{Method: method, TLS: r.TLS, Authorization: r.Header.Get("Authorization")}
	if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && a != nil {
		c.Remote = remoteAddr{network: a.Network(), text: r.RemoteAddr}
	}
	return c
}

// remoteAddr is net/http's textual peer address as a net.Addr.
type remoteAddr struct{ network, text string }

func (a remoteAddr) Network() string { return a.network }
func (a remoteAddr) String() string  { return a.text }

// recorder notes what was sent.
type recorder struct {
	http.ResponseWriter
	status int // 0 until the header is written
	bytes  int64
}

func (w *recorder) WriteHeader(code int) {
	if w.status == 0 {
		w.status = code
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap serves http.ResponseController.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Deadline returns the moment a request must be answered by.
func Deadline(ctx context.Context) time.Time {
	d, ok := ctx.Deadline()
	if !ok {
		d = time.Now().Add(DefaultTimeout)
	}
	return d
}
