package pipelink

import (
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	api "kvstore/api/kvstore/v1"
)

// randomMessage sets fields of m at random.
func randomMessage(rng *rand.Rand, m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); rng.IntN(2) == 0 && depth > 0 {
			randomField(rng, m, fd, depth)
		}
	}
	if rng.IntN(100) == 0 {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 3000, protowire.VarintType), 7))
	}
}

func randomField(rng *rand.Rand, m protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	switch rare := rng.IntN(20) > 0; {
	case fd.IsMap() && rare, fd.Name() == "fence" && rare, fd.Name() == "order":
	case fd.IsMap():
		m.Mutable(fd).Map().Set(protoreflect.ValueOfString("a").MapKey(), protoreflect.ValueOfString("b"))
	case fd.IsList() && fd.Message() != nil:
		for range rng.IntN(4) {
			randomMessage(rng, m.Mutable(fd).List().AppendMutable().Message(), depth-1)
		}
	case fd.IsList():
		m.Mutable(fd).List().Append(randomValue(rng, fd))
	case fd.Message() != nil:
		randomMessage(rng, m.Mutable(fd).Message(), depth-1)
	default:
		m.Set(fd, randomValue(rng, fd))
	}
}

func randomValue(rng *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	v := rng.Uint64() >> rng.IntN(64)
	switch fd.Kind() { //nolint:exhaustive // requests have no others
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v&1 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(v)))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(v))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(make([]byte, v%300))
	}
	return protoreflect.ValueOfString("äbcdefghij"[2*rng.IntN(2) : 2+rng.IntN(9)])
}

// sameAsGenerated holds the decoding of b to that of the generated code.
func sameAsGenerated(t *testing.T, b []byte) {
	t.Helper()
	var got, want api.PipelineRequest
	in := append([]byte{}, b...)
	err, wrong := unmarshal(in, &got), proto.Unmarshal(b, &want)
	clear(in) // nothing may refer to it
	if (err == nil) != (wrong == nil) || err != nil && err.Error() != wrong.Error() {
		t.Fatalf("%x: %v, want %v", b, err, wrong)
	}
	if err == nil && !proto.Equal(&got, &want) {
		t.Fatalf("%x is\n%v, want\n%v", b, &got, &want)
	}
}

func TestRequests(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	byHand := 0
	for range 5_000 {
		q := new(api.PipelineRequest)
		randomMessage(rng, q.ProtoReflect(), 6)
		b, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		sameAsGenerated(t, b)
		if readRequest(b, new(api.PipelineRequest)) {
			byHand++
		}
		for range 5 {
			sameAsGenerated(t, damaged(rng, b))
		}
	}
	if byHand < 1_000 {
		t.Fatalf("%d of 5,000 decoded by hand", byHand)
	}
}

// damaged changes a little of b.
func damaged(rng *rand.Rand, b []byte) []byte {
	b = append([]byte{}, b...)
	if len(b) == 0 {
		return b
	}
	at := rng.IntN(len(b))
	switch rng.IntN(4) {
	case 0:
		return b[:at]
	case 1:
		return append(b, b[at:]...)
	case 2:
		return append(b[:at:at], b[min(len(b), at+1+rng.IntN(3)):]...)
	}
	b[at] ^= 1 << rng.IntN(8)
	return b
}

// Text that is no UTF-8, fields twice, in other types and in more bytes than they need.
func TestUnusualRequests(t *testing.T) {
	nested := func(body []byte, numbers ...protowire.Number) []byte {
		for _, n := range numbers {
			body = protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), body)
		}
		return body
	}
	for _, body := range [][]byte{
		{}, {0}, {0x80}, {1<<3 | 2, 1}, {1 << 3, 1}, {1<<3 | 5, 1, 2, 3, 4}, {0x0a, 0x81, 0}, {0x8a, 0, 1, 'x'},
		{2<<3 | 2, 1, 0xff}, {2<<3 | 2, 0, 2<<3 | 2, 1, 'k'}, {11<<3 | 2, 2, 8, 1, 11<<3 | 2, 2, 16, 2},
		{3<<3 | 2, 1, 'a', 3<<3 | 2, 0}, {1<<3 | 3, 1<<3 | 4}, {6 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		{6 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2},
	} {
		sameAsGenerated(t, body)
		for kind := range protowire.Number(10) {
			sameAsGenerated(t, nested(body, kind+1, 1))
			sameAsGenerated(t, nested(append(nested(body, kind+1), nested(body, kind+1)...), 1))
			for _, list := range []protowire.Number{2, 3, 4} {
				sameAsGenerated(t, nested(body, kind+1, list, 9, 1))
				sameAsGenerated(t, nested(append(nested(body, kind+1), nested(body, kind+1)...), list, 9, 1))
			}
		}
	}
}

func FuzzRequest(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		q := new(api.PipelineRequest)
		randomMessage(rng, q.ProtoReflect(), 6)
		b, err := proto.Marshal(q)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(sameAsGenerated)
}

// frameOf is a frame of n transactions of 5 puts each.
func frameOf(tb testing.TB, n int) []byte {
	q := new(api.PipelineRequest)
	for i := range n {
		txn := &api.TransactionRequest{RequestId: "0123456789abcdefghijklmnop"}
		for range 5 {
			sum := uint32(1 << 30)
			txn.Then = append(txn.Then, &api.TransactionOp{Op: &api.TransactionOp_Put{Put: &api.PutRequest{
				Key: "k000000000000001", Value: make([]byte, 256), Checksum: &sum}}})
		}
		q.Ops = append(q.Ops, &api.PipelineOp{Id: uint64(i), TimeoutMs: 10_000, Op: &api.PipelineOp_Transaction{Transaction: txn}})
	}
	b, err := proto.Marshal(q)
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

func BenchmarkTransactions(b *testing.B) {
	body := frameOf(b, 4)
	for name, decode := range map[string]func([]byte, proto.Message) error{"hand": unmarshal, "generated": proto.Unmarshal} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := decode(body, new(api.PipelineRequest)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Operations that are many are decoded with few pieces of memory, whatever they hold.
func TestRequestAllocations(t *testing.T) {
	gets, puts := new(api.BatchGetRequest), new(api.BatchPutRequest)
	for range 10 {
		gets.Keys = append(gets.Keys, "k000000000000001")
		puts.Items = append(puts.Items, &api.PutRequest{Key: "k000000000000001", Value: make([]byte, 256)})
	}
	for _, c := range []struct {
		op   *api.PipelineOp
		most float64
	}{
		{&api.PipelineOp{Op: &api.PipelineOp_Get{Get: &api.GetRequest{Key: "k"}}}, 5},
		{&api.PipelineOp{Op: &api.PipelineOp_Put{Put: puts.Items[0]}}, 6},
		{&api.PipelineOp{Op: &api.PipelineOp_BatchGet{BatchGet: gets}}, 6},
		{&api.PipelineOp{Op: &api.PipelineOp_BatchPut{BatchPut: puts}}, 8},
	} {
		body, err := proto.Marshal(&api.PipelineRequest{Ops: []*api.PipelineOp{c.op}})
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() {
			if !readRequest(body, new(api.PipelineRequest)) {
				t.Fatal("left to the generated code")
			}
		}); n > c.most {
			t.Errorf("%T takes %v allocations, at most %v", c.op.Op, n, c.most)
		}
	}
}
