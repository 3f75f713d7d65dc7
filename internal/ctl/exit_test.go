package ctl

import (
	"bytes"
	"testing"

	"kvstore/client"
)

// What layers say again is said once.
func TestErrorsSayThingsOnce(t *testing.T) {
	for text, want := range map[string]string{
		"unavailable: no leader (group=3) (group=3)":                                                                    "unavailable: no leader (group=3)",
		"unavailable: no leader (group=3) (attempts=2, group=3)":                                                        "unavailable: no leader (group=3) (attempts=2)",
		"unavailable: no leader (group=3): no leader (group=4)":                                                         "unavailable: no leader (group=3): no leader (group=4)",
		"unknown_outcome: the answer was lost (request_id=x): unknown_outcome: the answer was lost: connection refused": "unknown_outcome: the answer was lost (request_id=x): connection refused",
		"open a: a: is a directory":                                                                                     "open a: a: is a directory",
	} {
		if got := once(text); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// The record of a request whose condition failed is committed, and does not read as
// a success.
func TestFailedRequestIsNoSuccess(t *testing.T) {
	var out bytes.Buffer
	a := &app{Streams: Streams{Out: &out}}
	o := client.RequestOutcome{ID: "i", State: client.RequestCommitted, Succeeded: true,
		Err: &client.Error{Code: client.CodeConditionFailed, Message: "condition does not hold"}}
	if err := a.showRequest(o); err != nil {
		t.Fatal(err)
	}
	const want = "state    committed\noutcome  condition_failed\nerror    condition_failed: condition does not hold\n"
	if out.String() != want {
		t.Errorf("%s", &out)
	}
	out.Reset()
	a.opts.output = formatJSON
	if err := a.showRequest(o); err != nil {
		t.Fatal(err)
	}
	const json = `{"request_id":"i","state":"committed","outcome":"condition_failed","revision":"0","succeeded":false,"error":{"code":"condition_failed","message":"condition does not hold"}}` + "\n"
	if out.String() != json {
		t.Errorf("%s", &out)
	}
}
