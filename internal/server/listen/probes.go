package listen

import (
	"crypto/tls"
	"net/http"
	"strings"

	"kvstore/internal/fault"
	"kvstore/internal/server/rest"
)

// Health probes come without credentials, also where client_auth asks every
// client for a certificate (S3.19). On listeners that serve them the handshake
// therefore accepts a client that shows none, and every request but a probe is
// refused without a verified certificate. A certificate that is shown is
// verified in the handshake as before.

// probePaths need no certificate.
var probePaths = map[string]bool{"/healthz": true, "/readyz": true}

// WithProbes returns what a listener that serves probes uses in place of c and
// h; both unchanged where c does not ask for certificates.
func WithProbes(c *tls.Config, h http.Handler) (*tls.Config, http.Handler) {
	if c == nil || c.ClientAuth != tls.RequireAndVerifyClientCert {
		return c, h
	}
	relaxed := c.Clone()
	relaxed.ClientAuth = tls.VerifyClientCertIfGiven
	if follow := c.GetConfigForClient; follow != nil {
		relaxed.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			now, err := follow(hello)
			if now == nil || err != nil {
				return now, err
			}
			now = now.Clone()
			now.ClientAuth = tls.VerifyClientCertIfGiven
			return now, nil
		}
	}
	return relaxed, requireCertificate(h)
}

func requireCertificate(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		probe := probePaths[r.URL.Path] && (r.Method == http.MethodGet || r.Method == http.MethodHead)
		if probe || (r.TLS != nil && len(r.TLS.VerifiedChains) > 0) {
			h.ServeHTTP(w, r)
			return
		}
		const message = "a client certificate is required; only /healthz and /readyz answer without one"
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "16") // UNAUTHENTICATED
			w.Header().Set("Grpc-Message", message)
			return
		}
		rest.WriteProblem(w, r, fault.New(fault.Unauthenticated, message))
	})
}
