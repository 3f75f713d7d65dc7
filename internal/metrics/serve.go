package metrics

import (
	"io"
	"net/http"
	"net/http/pprof"
)

// Pages are the handlers of the metrics listener (2112).
type Pages struct {
	// Ready tells whether the node can serve linearizable requests, else why
	// not.
	Ready func() (bool, string)
	// Pprof adds /debug/pprof.
	Pprof bool
}

// Serve returns the handler of the metrics listener: /metrics, /healthz,
// /readyz and, when asked for, /debug/pprof.
func (r *Registry) Serve(p Pages) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", r.Handler())
	mux.HandleFunc("GET /healthz", Healthz)
	mux.HandleFunc("GET /readyz", Readyz(p.Ready))
	if p.Pprof {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// Healthz answers that the process lives and its listener serves.
func Healthz(w http.ResponseWriter, _ *http.Request) {
	plain(w, http.StatusOK, "ok")
}

// Readyz answers 200 when ready, else 503 with the reason as text.
func Readyz(ready func() (bool, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if ok, reason := ready(); !ok {
			plain(w, http.StatusServiceUnavailable, "not ready: "+reason)
			return
		}
		plain(w, http.StatusOK, "ready")
	}
}

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = io.WriteString(w, text+"\n") // the client is gone: nobody to tell
}
