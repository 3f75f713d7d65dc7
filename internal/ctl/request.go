package ctl

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"kvstore/client"
	"kvstore/internal/txnform"
)

const requestIDHelp = "name the request by an id of 'kvctl request new'; sent again it is not executed again"

// requestView is the outcome of a request with -o json.
type requestView struct {
	RequestID string `json:"request_id"`
	State     string `json:"state"`
	// Outcome is executed, or the code of what kept it from that; empty while that is
	// not known. Succeeded says that it was executed and all checks held.
	Outcome   string     `json:"outcome,omitempty"`
	Revision  uint64     `json:"revision,string"`
	Succeeded bool       `json:"succeeded"`
	Error     *errorView `json:"error,omitempty"`
	// Answer is that of the request as far as it is kept.
	Answer json.RawMessage `json:"answer,omitempty"`
}

func (a *app) requestCmd() *cobra.Command {
	fresh := &cobra.Command{Use: "new", Short: "Print a new request id", Args: usageArgs(cobra.NoArgs),
		Long: "Print a new request id, for --request-id of kvctl txn, put and delete or the header\n" +
			"Request-Id of REST. It is good for one request, begun within ten minutes.",
		RunE: a.with(func(_ context.Context, c *client.Client, _ []string) error {
			id := c.NewRequestID()
			if a.format(formatTable) == formatJSON {
				return a.json(map[string]string{"request_id": id})
			}
			_, err := fmt.Fprintln(a.Out, id)
			return err
		})}
	show := &cobra.Command{Use: "show ID", Short: "Tell what became of a request", Args: usageArgs(cobra.ExactArgs(1)),
		Long: "Tell what became of a request that had an id: committed, aborted, unknown (it did not\n" +
			"arrive, or not yet) or expired. One that is under way is brought to its end first, so\n" +
			"that aborted and committed stay so. Outcomes are kept for ten minutes.",
		RunE: a.with(func(ctx context.Context, c *client.Client, args []string) error {
			out, err := c.DescribeRequest(ctx, args[0])
			if err != nil {
				return err
			}
			return a.showRequest(out)
		})}
	return group("request", "Make ids for requests, and ask what became of them", fresh, show)
}

func (a *app) showRequest(out client.RequestOutcome) error {
	view := requestView{RequestID: out.ID, State: string(out.State), Revision: out.Revision, Succeeded: out.Succeeded && out.Err == nil}
	switch {
	case out.Err != nil:
		view.Outcome = string(client.CodeOf(out.Err))
	case out.State == client.RequestCommitted:
		view.Outcome = "executed"
	}
	if out.Err != nil {
		e := viewError(out.Err, "")
		view.Error = &e
	}
	if answer := txnform.Answer(out.Answer); answer != nil {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(answer)
		if err != nil {
			return err
		}
		view.Answer = text
	}
	if a.format(formatTable) == formatJSON {
		return a.json(view)
	}
	fields := []string{"state", view.State, "outcome", view.Outcome}
	switch {
	case out.Err != nil:
		fields = append(fields, "error", plain(out.Err))
	case out.State == client.RequestCommitted:
		fields = append(fields, "succeeded", fmt.Sprint(view.Succeeded), "revision", revision(out.Revision))
	}
	return a.fields(fields...)
}
