package client

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	api "kvstore/api/kvstore/v1"
	"strings"
	"testing"
	"time"
)

func TestPutGetDelete(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	ctx := t.Context()
	put := mustPut(t, c, "a/é", "value", WithContentType("text/plain"), WithEncoding("zstd"), WithTag("x", "1"), WithTag("y", "2"),
		WithMetadata(map[string]string{"owner": "me"}), WithTTL(time.Hour))
	if put.Version != 1 || put.Revision == 0 || put.Checksum != crc32.Checksum([]byte("value"), castagnoli) {
		t.Fatalf("put answered %+v", put)
	}
	r := wantValue(t, c, "a/é", "value")
	if r.ContentType != "text/plain" || r.Encoding != "zstd" || r.Tags["x"] != "1" || r.Tags["y"] != "2" || r.Metadata["owner"] != "me" {
		t.Fatalf("record %+v", r)
	}
	if d := r.ExpiresAt.Sub(r.CreatedAt); d != time.Hour || r.Size != 5 || r.Version != 1 || r.Revision != put.Revision || r.Read.Revision == 0 {
		t.Fatalf("record %+v, expires after %v", r, d)
	}
	if r, err := c.Get(ctx, "a/é", KeysOnly()); err != nil || r.Value != nil || r.Size != 5 {
		t.Fatalf("keys only: %+v, %v", r, err)
	}
	if ok, err := c.Exists(ctx, "a/é"); !ok || err != nil {
		t.Fatalf("exists: %v, %v", ok, err)
	}
	if d, err := c.Delete(ctx, "a/é"); err != nil || !d.Existed || d.Revision <= put.Revision {
		t.Fatalf("delete answered %+v, %v", d, err)
	}
	if d, err := c.Delete(ctx, "a/é"); err != nil || d.Existed {
		t.Fatalf("second delete answered %+v, %v", d, err)
	}
	if ok, err := c.Exists(ctx, "a/é"); ok || err != nil {
		t.Fatalf("exists after delete: %v, %v", ok, err)
	}
	_, err := c.Get(ctx, "a/é")
	wantError(t, err, ErrNotFound)
	if got := CodeOf(err); got != CodeNotFound {
		t.Fatalf("code %q", got)
	}
}

func TestTouch(t *testing.T) {
	f := newFakeCluster(t, 3)
	f.namespaces["app"] = &api.Namespace{Name: "app", Id: 16, State: "active"}
	c := f.client(nil)
	ctx := t.Context()
	put := mustPut(t, c, "k", "value", WithTag("x", "1"))
	res, err := c.Touch(ctx, "k", WithTTL(time.Hour), IfVersion(put.Version))
	if err != nil || res.Version != 2 || res.ExpiresAt.IsZero() || res.Checksum != put.Checksum {
		t.Fatalf("%+v, %v", res, err)
	}
	if r := wantValue(t, c, "k", "value"); !r.ExpiresAt.Equal(res.ExpiresAt) || r.Tags["x"] != "1" {
		t.Fatalf("record %+v", r)
	}
	at := time.UnixMilli(1 << 42)
	if res, err = c.Touch(ctx, "k", WithExpiry(at)); err != nil || !res.ExpiresAt.Equal(at) {
		t.Fatalf("%+v, %v", res, err)
	}
	if res, err = c.Touch(ctx, "k", Persist()); err != nil || !res.ExpiresAt.IsZero() {
		t.Fatalf("%+v, %v", res, err)
	}
	_, err = c.Touch(ctx, "k", Persist(), IfVersion(1))
	wantError(t, err, ErrConditionFailed)
	_, err = c.Touch(ctx, "k", Persist(), InNamespace("app"))
	wantError(t, err, ErrConditionFailed)
	for name, opts := range map[string][]TouchOption{
		"nothing": nil, "two": {WithTTL(time.Second), Persist()}, "none": {WithTTL(0)}, "negative": {WithTTL(-time.Second)},
		"parts": {WithTTL(1500 * time.Millisecond)}, "both": {WithTTL(time.Second), WithExpiry(at)}, "1970": {WithExpiry(time.Unix(0, 0))},
	} {
		if _, err := c.Touch(ctx, "k", opts...); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%s: %v", name, err)
		}
	}
	txn, err := c.Txn(ctx).Then(OpTouch("k", WithTTL(time.Hour)), OpGet("k")).Commit()
	if err != nil || txn.Put(0).Version != 5 || txn.Put(0).ExpiresAt.IsZero() || txn.Results[1].Record.Version != 4 {
		t.Fatalf("%+v, %v", txn, err)
	}
	_, err = c.Txn(ctx).Then(OpPut("l", nil), OpTouch("none", WithTTL(time.Hour))).Commit()
	wantError(t, err, ErrConditionFailed)
	if _, err = c.Txn(ctx).Then(OpTouch("k")).Commit(); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a touch without a deadline: %v", err)
	}
}

// An expiry that has passed keeps a transaction from being executed: the caller is
// told which.
func TestTxnWithAPassedExpiry(t *testing.T) {
	c := newFakeCluster(t, 1).client(nil)
	txn := c.Txn(t.Context()).Then(OpGet("g"), OpPut("k", nil), OpPut("l", nil))
	for i, code := range []Code{CodeNotFound, CodeBatchAborted, CodeInvalidArgument} {
		r := &TxnResult{Succeeded: true, Results: make([]OpResult, 3)}
		r.Results[i].Err = newError(code, "made by the test")
		err := txn.failure(r)
		var e *Error
		if refused := code == CodeInvalidArgument; (err != nil) != refused || refused && (!errors.As(err, &e) || e.Details["item"] != "2") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestEmptyValueIsNotNil(t *testing.T) {
	c := newFakeCluster(t, 1).client(nil)
	mustPut(t, c, "k", "")
	if r := wantValue(t, c, "k", ""); r.Value == nil {
		t.Fatal("an empty value came back as nil")
	}
}

func TestBoundedStalenessSaysWhatWasServed(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	mustPut(t, c, "k", "v")
	r := wantValue(t, c, "k", "v", WithMaxStaleness(100*time.Millisecond))
	if r.Read.Consistency != BoundedStaleness || r.Read.Age != 50*time.Millisecond {
		t.Fatalf("served %+v", r.Read)
	}
}

// S3.9: conditions on any write.
func TestConditions(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	ctx := t.Context()
	first := mustPut(t, c, "k", "1", IfAbsent())
	second := mustPut(t, c, "k", "2", IfVersion(first.Version), IfRevision(first.Revision), IfExists(), IfValue([]byte("1")))
	for name, opt := range map[string]WriteOption{
		"absent": IfAbsent(), "version": IfVersion(9), "version 0": IfVersion(0), "revision": IfRevision(first.Revision),
		"value": IfValue([]byte("1")), "whole": If(Condition{MustNotExist: true}),
	} {
		_, err := c.Put(ctx, "k", []byte("3"), opt)
		if !errors.Is(err, ErrConditionFailed) {
			t.Errorf("put if %s: %v", name, err)
		}
		_, err = c.Delete(ctx, "k", opt)
		if !errors.Is(err, ErrConditionFailed) {
			t.Errorf("delete if %s: %v", name, err)
		}
		var e *Error
		if !errors.As(err, &e) || e.Details["actual_version"] != "2" {
			t.Errorf("delete if %s: details %v", name, e)
		}
	}
	if _, err := c.Delete(ctx, "k", IfRevision(second.Revision)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "k", nil, IfExists()); !errors.Is(err, ErrConditionFailed) {
		t.Fatalf("put if exists: %v", err)
	}
}

// ASKS A3, A4: what the server would refuse is refused at the operation.
func TestLimitsAreTheServers(t *testing.T) {
	f := newFakeCluster(t, 1)
	f.limits = limits{valueBytes: 1000, keyBytes: 20, messageBytes: 4000}
	c := f.client(nil)
	ctx := t.Context()
	mustPut(t, c, strings.Repeat("k", 20), strings.Repeat("v", 1000))
	_, err := c.Put(ctx, "k", make([]byte, 1001))
	wantError(t, err, ErrValueTooLarge)
	var e *Error
	if errors.As(err, &e); e.Details["limit_bytes"] != "1000" || e.Details["actual_bytes"] != "1001" || e.Details["key"] != "k" {
		t.Fatalf("details %v", e.Details)
	}
	_, err = c.PutReader(ctx, "k", bytes.NewReader(make([]byte, 1001)), -1)
	wantError(t, err, ErrValueTooLarge)
	_, err = c.Get(ctx, strings.Repeat("k", 21))
	wantError(t, err, ErrKeyTooLarge)
	_, err = c.Delete(ctx, "")
	wantError(t, err, ErrInvalidKey)
	_, err = c.Exists(ctx, "a\xff")
	wantError(t, err, ErrInvalidKey)
	_, err = c.Put(ctx, "k", nil, WithTTL(1500*time.Millisecond))
	wantError(t, err, ErrInvalidArgument)
	_, err = c.Put(ctx, "k", nil, WithTTL(time.Second), WithExpiry(time.Now()))
	wantError(t, err, ErrInvalidArgument)
	items := make([]PutItem, 5)
	for i := range items {
		items[i] = PutItem{Key: "k", Value: make([]byte, 1000)}
	}
	_, err = c.BatchPut(ctx, items)
	wantError(t, err, ErrMessageTooLarge)
	if n := f.executions("k"); n != 0 {
		t.Fatalf("%d refused writes were executed", n)
	}
}

func TestWrongChecksumIsRefused(t *testing.T) {
	c := newFakeCluster(t, 1).client(nil)
	_, err := c.Put(t.Context(), "k", []byte("v"), WithChecksum(1))
	wantError(t, err, ErrChecksumMismatch)
}

func TestCorruptValueIsReported(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	mustPut(t, c, "k", "value")
	f.mu.Lock()
	f.data["default\x00k"].Value = []byte("valve")
	f.mu.Unlock()
	_, err := c.Get(t.Context(), "k")
	wantError(t, err, ErrCorruption)
	v, err := c.GetReader(t.Context(), "k")
	if err != nil {
		t.Fatal(err)
	}
	_, err = new(bytes.Buffer).ReadFrom(v)
	wantError(t, err, ErrCorruption)
}

func TestNamespaces(t *testing.T) {
	c := newFakeCluster(t, 3).client(nil)
	ctx := t.Context()
	_, err := c.Put(ctx, "k", nil, InNamespace("other"))
	wantError(t, err, ErrNamespaceNotFound)
	if ns, err := c.CreateNamespace(ctx, "other"); err != nil || ns.GetName() != "other" {
		t.Fatalf("created %v, %v", ns, err)
	}
	_, err = c.CreateNamespace(ctx, "other")
	wantError(t, err, ErrNamespaceExists)
	mustPut(t, c, "k", "there", InNamespace("other"))
	wantValue(t, c, "k", "there", InNamespace("other"))
	_, err = c.Get(ctx, "k")
	wantError(t, err, ErrNotFound)
	if all, err := c.ListNamespaces(ctx); err != nil || len(all) != 2 {
		t.Fatalf("namespaces %v, %v", all, err)
	}
	if ns, err := c.DescribeNamespace(ctx, "other"); err != nil || ns.GetState() != "active" {
		t.Fatalf("described %v, %v", ns, err)
	}
	job, err := c.DeleteNamespace(ctx, "other")
	if err != nil {
		t.Fatal(err)
	}
	if job, err = c.DescribeJob(ctx, job.GetId()); err != nil || job.GetState() != "done" {
		t.Fatalf("job %v, %v", job, err)
	}
	_, err = c.DescribeNamespace(ctx, "other")
	wantError(t, err, ErrNamespaceNotFound)
}

func TestStatusTopologyDigest(t *testing.T) {
	f := newFakeCluster(t, 3)
	c := f.client(nil)
	ctx := t.Context()
	if s, err := c.Status(ctx); err != nil || s.GetClusterId() != "fake" {
		t.Fatalf("status %v, %v", s, err)
	}
	for _, name := range []string{"node-b", "id-node-b", f.nodes[1].addr} {
		if s, err := c.StatusOf(ctx, name); err != nil || s.GetNodeName() != "node-b" {
			t.Fatalf("status of %s: %v, %v", name, s, err)
		}
	}
	_, err := c.StatusOf(ctx, "nobody")
	wantError(t, err, ErrNotFound)
	if nodes, err := c.Nodes(ctx); err != nil || len(nodes) != 3 {
		t.Fatalf("nodes %v, %v", nodes, err)
	}
	if d, err := c.Digest(ctx); err != nil || !d.GetEqual() {
		t.Fatalf("digest %v, %v", d, err)
	}
}

func TestDoneContextSendsNothing(t *testing.T) {
	f := newFakeCluster(t, 1)
	c := f.client(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Put(ctx, "k", nil)
	wantError(t, err, context.Canceled)
	wantError(t, err, ErrCanceled)
	if n := f.nodes[0].ops.Load(); n != 0 {
		t.Fatalf("%d operations were sent", n)
	}
}
