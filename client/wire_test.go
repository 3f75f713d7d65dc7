package client

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

// wireRand draws arguments with every field set or not.
type wireRand struct{ *rand.Rand }

func newWireRand(t *testing.T) wireRand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return wireRand{rand.New(rand.NewPCG(seed, 0))}
}

func (r wireRand) bytes() []byte {
	b := make([]byte, r.IntN(300))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func (r wireRand) text() string {
	if r.IntN(3) == 0 {
		return ""
	}
	return "text-é-" + string(rune('a'+r.IntN(26)))
}

func (r wireRand) pairs() map[string]string {
	if r.IntN(2) == 0 {
		return nil
	}
	m := make(map[string]string)
	for range 1 + r.IntN(3) {
		m[r.text()] = r.text()
	}
	return m
}

func (r wireRand) condition() Condition {
	var c Condition
	switch r.IntN(8) {
	case 5:
		c.Created = new(r.Uint64())
	case 6:
		c.Lease = "lease"
	case 0:
		c.Version = new(r.Uint64() >> r.IntN(64))
	case 1:
		c.Revision = new(r.Uint64())
	case 2:
		c.MustExist = true
	case 3:
		c.MustNotExist = true
	case 4:
		c.ValueEquals, c.HasValueEquals = r.bytes(), true
	}
	return c
}

func (r wireRand) fence() *Fence {
	if r.IntN(2) == 0 {
		return nil
	}
	return &Fence{Namespace: r.text(), Key: "lock" + r.text(), Revision: 1 + r.Uint64()>>1}
}

func (r wireRand) putItem() PutItem {
	i := PutItem{Key: "k" + r.text(), Value: r.bytes(), ContentType: r.text(), Encoding: r.text(), Tags: r.pairs(), Metadata: r.pairs(), Condition: r.condition(), Lease: r.text(), fence: r.fence()}
	switch r.IntN(3) {
	case 0:
		i.TTL = time.Duration(1+r.IntN(1000)) * time.Second
	case 1:
		i.ExpiresAt = time.UnixMilli(r.Int64N(1 << 45))
	}
	return i
}

func apiPut(namespace string, i *PutItem) *api.PutRequest {
	u := &upload{call: &putCall{namespace: namespace, item: *i}}
	q := u.request()
	q.Checksum = new(itemChecksum(i))
	if len(i.Value) > 0 {
		q.Value = i.Value
	}
	return q
}

// wantFrame decodes a frame with the generated code and compares it.
func wantFrame(t *testing.T, body []byte, want *api.PipelineOp) {
	t.Helper()
	want.Id, want.TimeoutMs = 1<<40|77, 3
	frame := appendOp([]byte(nil), want.GetId(), body, 2*time.Millisecond+1)
	if len(frame) > len(body)+opOverheadBytes {
		t.Fatalf("a frame adds %d bytes, bound %d", len(frame)-len(body), opOverheadBytes)
	}
	var got api.PipelineRequest
	if err := proto.Unmarshal(frame, &got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(&got, &api.PipelineRequest{Ops: []*api.PipelineOp{want}}) {
		t.Fatalf("encoded\n%v\nwant\n%v", &got, want)
	}
}

func TestEncodedOperationsEqualGenerated(t *testing.T) {
	r := newWireRand(t)
	for range 2000 {
		item, del, ns := r.putItem(), DeleteItem{Key: r.text(), Condition: r.condition(), fence: r.fence()}, r.text()
		read := readCall{maxAge: time.Duration(r.IntN(5)) * time.Millisecond, keysOnly: r.IntN(2) == 0, at: moment{revision: r.Uint64() >> r.IntN(64), agoMs: int64(r.IntN(3))}, consistency: Consistency(r.IntN(2))}
		get := &api.GetRequest{Namespace: ns, Key: del.Key, Consistency: api.Consistency(read.consistency), MaxStalenessMs: read.maxAge.Milliseconds(), KeysOnly: read.keysOnly, AtRevision: read.at.revision, AtTimeMs: -read.at.agoMs}
		apiDel := &api.DeleteRequest{Key: del.Key, Condition: conditionToAPI(&del.Condition), Fence: del.fence.toAPI()}
		atomic := r.IntN(2) == 0
		wantFrame(t, appendPut(nil, fieldOpPut, ns, &item), &api.PipelineOp{Op: &api.PipelineOp_Put{Put: apiPut(ns, &item)}})
		touch := touchItem{key: item.Key, ttl: item.TTL, expiresAt: item.ExpiresAt, persist: atomic, condition: item.Condition}
		wantFrame(t, appendTouch(nil, fieldOpTouch, ns, &touch), &api.PipelineOp{Op: &api.PipelineOp_Touch{Touch: &api.TouchRequest{
			Namespace: ns, Key: item.Key, TtlSeconds: int64(item.TTL / time.Second), ExpiresAtMs: expiryMillis(item.ExpiresAt), Persist: atomic,
			Condition: conditionToAPI(&item.Condition)}}})
		wantFrame(t, appendGet(nil, fieldOpGet, ns, del.Key, &read), &api.PipelineOp{Op: &api.PipelineOp_Get{Get: get}})
		w := &batchWriteCall{namespace: ns, atomic: atomic, requestID: r.text(), fence: r.fence()}
		wantFrame(t, appendBatchPut(nil, w, []PutItem{{}, item, item}, []int{1, 2}), &api.PipelineOp{Op: &api.PipelineOp_BatchPut{
			BatchPut: &api.BatchPutRequest{Namespace: ns, Items: []*api.PutRequest{apiPut("", &item), apiPut("", &item)}, Atomic: atomic, RequestId: w.requestID, Fence: w.fence.toAPI()}}})
		wantFrame(t, appendBatchDelete(nil, w, []DeleteItem{del}, []int{0}), &api.PipelineOp{Op: &api.PipelineOp_BatchDelete{
			BatchDelete: &api.BatchDeleteRequest{Namespace: ns, Items: []*api.DeleteRequest{apiDel}, Atomic: atomic, RequestId: w.requestID, Fence: w.fence.toAPI()}}})
		wantFrame(t, appendBatchGet(nil, ns, []string{"a", "b", ""}, []int{0, 2}, &read), &api.PipelineOp{Op: &api.PipelineOp_BatchGet{
			BatchGet: &api.BatchGetRequest{Namespace: ns, Keys: []string{"a", ""}, Consistency: get.Consistency, MaxStalenessMs: get.MaxStalenessMs, KeysOnly: get.KeysOnly, AtRevision: get.AtRevision}}})
		apiDel = proto.Clone(apiDel).(*api.DeleteRequest)
		apiDel.Namespace, apiDel.RequestId, del.requestID = ns, w.requestID, w.requestID
		wantFrame(t, appendDelete(nil, fieldOpDelete, ns, &del), &api.PipelineOp{Op: &api.PipelineOp_Delete{Delete: apiDel}})
	}
}

func (r wireRand) record() *api.Record {
	return &api.Record{
		Key: r.text(), Value: r.bytes(), ContentType: r.text(), Encoding: r.text(), Checksum: r.Uint32(), CreatedAtMs: r.Int64N(1 << 45),
		UpdatedAtMs: -r.Int64N(1 << 45), ExpiresAtMs: r.Int64N(2) * 1e12, Version: r.Uint64(), Revision: r.Uint64(), Tags: r.pairs(), Metadata: r.pairs(), Size: r.Uint64(),
		CreatedRevision: r.Uint64(), Lease: r.text(),
	}
}

func TestDecodedAnswersEqualGenerated(t *testing.T) {
	r := newWireRand(t)
	for range 2000 {
		record := r.record()
		get := &api.GetResponse{Record: record, Consistency: api.Consistency(r.IntN(2)), ReadRevision: r.Uint64(), AgeMs: r.Int64N(100)}
		body, err := decodeResult(mustMarshal(t, &api.PipelineResult{Id: 9, Result: &api.PipelineResult_Get{Get: get}}), fieldOpGet)
		if err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := decodeGet(body, "asked", &got); err != nil {
			t.Fatal(err)
		}
		want := recordFromAPI(record)
		want.Read = ReadInfo{Consistency: Consistency(get.GetConsistency()), Revision: get.GetReadRevision(), Age: millis(get.GetAgeMs())}
		if len(want.Value) == 0 {
			want.Value = nil
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("decoded\n%+v\nwant\n%+v", got, want)
		}
	}
}

func TestDecodedEventsEqualGenerated(t *testing.T) {
	r := newWireRand(t)
	event := func() (*api.WatchEvent, Event) {
		m := &api.WatchEvent{Type: api.WatchEvent_Type(r.IntN(2)), Record: r.record(), Reason: r.text()}
		want := Event{Type: EventType(m.GetType()), Record: recordFromAPI(m.GetRecord()), Reason: m.GetReason()}
		if r.IntN(2) == 0 {
			m.Previous = r.record()
			old := recordFromAPI(m.GetPrevious())
			want.Previous = &old
		}
		return m, want
	}
	for range 200 {
		b := &api.WatchBatch{WatchId: r.Uint64(), Revision: r.Uint64(), Token: r.bytes(), Fragment: r.IntN(2) == 0}
		var want []Event
		for range r.IntN(9) {
			m, e := event()
			b.Events, want = append(b.Events, m), append(want, e)
		}
		id, u, fragment, err := decodeBatch(mustMarshal(t, b))
		if err != nil || id != b.WatchId || fragment != b.Fragment || u.revision != b.Revision || !bytes.Equal(u.token, b.Token) || u.events != len(want) {
			t.Fatalf("decoded watch %d, %+v, %v, want %v", id, u, err, b)
		}
		got, err := u.decodeEvents("asked", nil)
		if err != nil || len(got) != len(want) {
			t.Fatalf("%d events, %v, want %d", len(got), err, len(want))
		}
		for i := range want {
			for _, rec := range []*Record{&want[i].Record, &got[i].Record, want[i].Previous, got[i].Previous} {
				if rec != nil && len(rec.Value) == 0 {
					rec.Value = nil
				}
			}
			if !reflect.DeepEqual(got[i], want[i]) {
				t.Fatalf("decoded\n%+v\nwant\n%+v", got[i], want[i])
			}
		}
	}
}

func TestDecodedProgressEqualsGenerated(t *testing.T) {
	m := mustMarshal(t, &api.WatchProgress{WatchIds: []uint64{1, 1 << 40, 3}, Revision: 9, Token: []byte("t")})
	m = protowire.AppendVarint(protowire.AppendTag(m, 1, protowire.VarintType), 4) // not packed
	var ids []uint64
	err := decodeProgress(m, func(id uint64, u *update) {
		if ids = append(ids, id); u.revision != 9 || string(u.token) != "t" {
			t.Errorf("%+v", u)
		}
	})
	if err != nil || !slices.Equal(ids, []uint64{1, 1 << 40, 3, 4}) {
		t.Errorf("watches %v, %v", ids, err)
	}
}

func TestDecodedPagesEqualGenerated(t *testing.T) {
	r := newWireRand(t)
	for range 200 {
		page := &api.ListResponse{ContinuationToken: r.text(), Revision: r.Uint64(), Count: r.Uint64()}
		var want []Record
		for range r.IntN(30) {
			record := r.record()
			page.Records = append(page.Records, record)
			want = append(want, recordFromAPI(record))
			if last := &want[len(want)-1]; len(last.Value) == 0 {
				last.Value = nil
			}
		}
		var got Page
		if err := decodePage(mustMarshal(t, page), &got); err != nil {
			t.Fatal(err)
		}
		if got.Token != page.ContinuationToken || got.Revision != page.Revision || got.Count != page.Count || len(got.Records) != len(want) {
			t.Fatalf("decoded %+v, want %v", got, page)
		}
		for i := range want {
			if !reflect.DeepEqual(got.Records[i], want[i]) {
				t.Fatalf("decoded\n%+v\nwant\n%+v", got.Records[i], want[i])
			}
			_ = append(got.Records[i].Value, "more"...) // must not reach the next record
		}
	}
}

// What is read the short way is what the long one reads, whole and cut off.
func TestShortFieldsEqualLong(t *testing.T) {
	r := newWireRand(t)
	for range 5000 {
		v := r.Uint64() >> r.IntN(64)
		b := protowire.AppendVarint(protowire.AppendTag(nil, protowire.Number(1+r.IntN(40)), protowire.VarintType), v)
		if r.IntN(2) == 0 {
			b = appendBytes(nil, protowire.Number(1+r.IntN(40)), make([]byte, v%40_000))
		}
		b = append(b, r.text()...)
		b = b[:len(b)-r.IntN(2)]
		short, shortRest, shortOK := nextField(b)
		long, longRest, longOK := anyField(b)
		if !reflect.DeepEqual(short, long) || !bytes.Equal(shortRest, longRest) || shortOK != longOK {
			t.Fatalf("%x: %v, %v and %v, %v", b[:min(len(b), 20)], short, shortOK, long, longOK)
		}
	}
}

// A page costs a few allocations, whatever the number of its records.
func TestPagesAllocateLittle(t *testing.T) {
	page := &api.ListResponse{}
	for range 500 {
		page.Records = append(page.Records, &api.Record{Key: "a key of some length", Value: make([]byte, 100), Version: 1, Revision: 9})
	}
	b := mustMarshal(t, page)
	n := testing.AllocsPerRun(20, func() {
		if err := decodePage(b, &Page{}); err != nil {
			t.Fatal(err)
		}
	})
	if n > 5 {
		t.Fatalf("%v allocations", n)
	}
}

func TestDecodedStatusEqualsGenerated(t *testing.T) {
	r := newWireRand(t)
	for range 500 {
		st := &api.Status{Code: "wrong_leader", Message: r.text(), Details: r.pairs(), RetryAfterMs: r.Int64N(100), LeaderNode: r.text()}
		_, err := decodeResult(mustMarshal(t, &api.PipelineResult{Status: st}), fieldOpPut)
		want := &Error{Code: CodeWrongLeader, Message: st.GetMessage(), Details: st.GetDetails(), RetryAfter: millis(st.GetRetryAfterMs()), Leader: st.GetLeaderNode()}
		if !reflect.DeepEqual(err, error(want)) {
			t.Fatalf("decoded %#v, want %#v", err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(mustMarshal(f, &api.PipelineResult{Id: 3, Result: &api.PipelineResult_BatchGet{BatchGet: &api.BatchGetResponse{
		Results: []*api.BatchGetResult{{Record: &api.Record{Key: "k", Tags: map[string]string{"a": "b"}}}, {Status: &api.Status{Code: "not_found"}}}}}}))
	f.Fuzz(func(_ *testing.T, b []byte) {
		resultID(b)
		_ = decodePage(bytes.Clone(b), &Page{})
		if _, u, _, err := decodeBatch(b); err == nil {
			_, _ = u.decodeEvents("k", nil)
		}
		_ = decodeProgress(b, func(uint64, *update) {})
		_, _, _ = decodePoint(b)
		_, _, _ = decodeEnded(b)
		for op := fieldOpPut; op <= fieldOpBatchDelete; op++ {
			body, err := decodeResult(bytes.Clone(b), op)
			if err != nil {
				continue
			}
			_ = decodePut(body, &PutResult{})
			_ = decodeDelete(body, &DeleteResult{})
			_ = decodeGet(body, "k", &Record{})
			_, _ = decodeItems(body, func(_ int, _ error, answer []byte) error {
				return decodeRecord(answer, "k", &Record{}, &slab{items: 2})
			})
		}
	})
}

func TestPaddedLengths(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 1 << 14, 1<<21 + 5, 1<<28 - 1} {
		b := make([]byte, 4)
		putPaddedLength(b, n)
		if got, size := protowire.ConsumeVarint(b); got != uint64(n) || size != 4 {
			t.Errorf("length %d reads as %d in %d bytes", n, got, size)
		}
	}
}
