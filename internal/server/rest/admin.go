package rest

import (
	_ "embed" // openapi.yaml
	"io"
	"net/http"
	"net/url"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
)

//go:embed openapi.yaml
var openapiDocument []byte

// openapi serves the contract.
func openapi(q *request) error {
	q.w.Header().Set("Content-Type", "application/yaml")
	_, _ = q.w.Write(openapiDocument) // the client is gone: nobody to tell
	return nil
}

// healthz answers that the process lives.
func healthz(q *request) error { return plain(q, "ok\n") }

// readyz answers 200 when the node can serve linearizable requests, else 503
// with the reason.
func (s *Server) readyz(q *request) error {
	if ok, reason := s.o.Ready(); !ok {
		return fault.New(fault.Unavailable, "not ready: "+reason)
	}
	return plain(q, "ready\n")
}

func plain(q *request, text string) error {
	q.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	q.w.Header().Set("Cache-Control", "no-store")
	_, _ = io.WriteString(q.w, text) // the client is gone: nobody to tell
	return nil
}

func (s *Server) metrics(q *request) error {
	s.o.Metrics.ServeHTTP(q.w, q.r)
	return nil
}

// protoJSON writes messages that grow with the server, in the JSON mapping of
// Protocol Buffers: 64-bit numbers are strings.
var protoJSON = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}

func writeMessage(q *request, m proto.Message) error {
	body, err := protoJSON.Marshal(m)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the answer could not be encoded")
	}
	q.w.Header().Set("Content-Type", "application/json")
	_, _ = q.w.Write(body) // the client is gone: nobody to tell
	return nil
}

func (s *Server) status(q *request) error {
	res, err := s.b.Status(q.ctx(), &api.StatusRequest{})
	if err != nil {
		return err
	}
	return writeMessage(q, res)
}

func (s *Server) digest(q *request) error {
	res, err := s.b.Digest(q.ctx(), &api.DigestRequest{})
	if err != nil {
		return err
	}
	return writeMessage(q, res)
}

// namespace is the JSON of api.Namespace.
type namespace struct {
	Name        string `json:"name"`
	ID          uint32 `json:"id"`
	CreatedAt   string `json:"created_at,omitempty"`
	State       string `json:"state"`
	DeletionJob string `json:"deletion_job,omitempty"`
}

func namespaceOf(n *api.Namespace) namespace {
	return namespace{
		Name: n.GetName(), ID: n.GetId(), CreatedAt: formatTime(n.GetCreatedAtMs()),
		State: n.GetState(), DeletionJob: n.GetDeletionJob(),
	}
}

func (s *Server) listNamespaces(q *request) error {
	res, err := s.b.ListNamespaces(q.ctx(), &api.ListNamespacesRequest{})
	if err != nil {
		return err
	}
	all := make([]namespace, len(res.GetNamespaces()))
	for i, n := range res.GetNamespaces() {
		all[i] = namespaceOf(n)
	}
	return writeJSON(q, http.StatusOK, map[string][]namespace{"namespaces": all})
}

func (s *Server) createNamespace(q *request) error {
	var body struct {
		Name string `json:"name"`
	}
	if err := readJSON(q, maxSmallBody, &body); err != nil {
		return err
	}
	res, err := s.b.CreateNamespace(q.ctx(), &api.CreateNamespaceRequest{Name: body.Name})
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", namespaces+"/"+url.PathEscape(res.GetName()))
	return writeJSON(q, http.StatusCreated, namespaceOf(res))
}

func (s *Server) describeNamespace(q *request) error {
	res, err := s.b.DescribeNamespace(q.ctx(), &api.DescribeNamespaceRequest{Name: q.param})
	if err != nil {
		return err
	}
	return writeJSON(q, http.StatusOK, namespaceOf(res))
}

// deleteNamespace starts the job; its path is in Location.
func (s *Server) deleteNamespace(q *request) error {
	res, err := s.b.DeleteNamespace(q.ctx(), &api.DeleteNamespaceRequest{Name: q.param})
	if err != nil {
		return err
	}
	return writeAccepted(q, res)
}
