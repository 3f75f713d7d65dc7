package rest

import (
	"net/http/httptest"
	"testing"

	"kvstore/internal/server/servertest"
)

// The session of docs/rest.md does what it says.
func TestDocumentedSession(t *testing.T) {
	srv := httptest.NewServer(newFixture(t).server)
	defer srv.Close()
	servertest.RunSession(t, "../../../docs/rest.md", srv.URL)
}
