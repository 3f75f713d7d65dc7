package rest

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/txnform"
)

// requestID is the id of a transaction, which its body or its header has.
func requestID(q *request, body string) (string, error) {
	header := q.r.Header.Get(headerRequestID)
	if header != "" && body != "" && header != body {
		return "", fault.New(fault.InvalidArgument, "header and body name different request ids", "header", clip(header), "body", clip(body))
	}
	return cmp.Or(header, body), nil
}

// newRequestID hands out an id for a request.
func (s *Server) newRequestID(q *request) error {
	res, err := s.b.NewRequestID(q.ctx(), &api.NewRequestIDRequest{})
	if err != nil {
		return err
	}
	q.w.Header().Set("Location", requests+"/"+res.GetRequestId())
	return writeJSON(q, http.StatusCreated, struct {
		RequestID string `json:"request_id"`
	}{res.GetRequestId()})
}

// outcome is the JSON of api.RequestOutcome.
type outcome struct {
	RequestID string   `json:"request_id"`
	State     string   `json:"state"`
	Revision  revision `json:"revision"`
	Succeeded bool     `json:"succeeded"`
	Error     *problem `json:"error,omitempty"`
	// Answer is that of the request, in the JSON mapping of Protocol Buffers; null
	// when it is not kept.
	Answer json.RawMessage `json:"answer"`
}

// describeRequest tells what became of a request.
func (s *Server) describeRequest(q *request) error {
	res, err := s.b.DescribeRequest(q.ctx(), &api.DescribeRequestRequest{RequestId: q.param})
	if err != nil {
		return err
	}
	out := outcome{
		RequestID: res.GetRequestId(), State: strings.ToLower(strings.TrimPrefix(res.GetState().String(), "STATE_")),
		Revision: revision(res.GetRevision()), Succeeded: res.GetSucceeded(), Error: itemError(res.GetError()), Answer: json.RawMessage("null"),
	}
	if answer := txnform.Answer(res); answer != nil {
		if out.Answer, err = (protojson.MarshalOptions{UseProtoNames: true}).Marshal(answer); err != nil {
			return fault.Wrap(fault.Internal, err, "the answer could not be encoded")
		}
	}
	return writeJSON(q, http.StatusOK, out)
}
