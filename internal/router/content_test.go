package router

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	api "kvstore/api/kvstore/v1"
)

// randomMessage sets fields of m at random; rare things are rare.
func randomMessage(rng *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() || rng.IntN(3) == 0 {
			continue
		}
		randomField(rng, m, fd)
	}
	oneofs := m.Descriptor().Oneofs()
	for i := range oneofs.Len() {
		if set := oneofs.Get(i).Fields(); !oneofs.Get(i).IsSynthetic() && rng.IntN(50) > 0 {
			randomField(rng, m, set.Get(rng.IntN(set.Len())))
		}
	}
	if rng.IntN(300) == 0 {
		m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 3000, protowire.VarintType), 7))
	}
}

func randomField(rng *rand.Rand, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	unusual := fd.IsMap() || fd.Name() == "fence" || fd.Name() == "reason" || fd.Name() == "request_id" ||
		m.Descriptor().Name() == "GetRequest" && fd.Number() > 2 && fd.Name() != "keys_only"
	switch {
	case unusual && rng.IntN(100) > 0:
	case fd.IsMap():
		for range rng.IntN(4) {
			m.Mutable(fd).Map().Set(protoreflect.ValueOfString(randomText(rng)).MapKey(), protoreflect.ValueOfString(randomText(rng)))
		}
	case fd.IsList() && fd.Message() != nil:
		for range rng.IntN(4) {
			randomMessage(rng, m.Mutable(fd).List().AppendMutable().Message())
		}
	case fd.IsList():
	case fd.Message() != nil:
		randomMessage(rng, m.Mutable(fd).Message())
	default:
		m.Set(fd, randomValue(rng, fd))
	}
}

func randomValue(rng *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	v := rng.Uint64() >> rng.IntN(64) * uint64(rng.IntN(5)) // often 0
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(v%2 == 1)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(v % 3))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(v))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(v)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(v))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte(randomText(rng)))
	default:
		return protoreflect.ValueOfString(randomText(rng))
	}
}

func randomText(rng *rand.Rand) string {
	if rng.IntN(500) == 0 {
		return "\xff"
	}
	return string(bytes.Repeat([]byte("ä"), rng.IntN(2)*rng.IntN(1<<rng.IntN(9))))
}

// mustEncodeContent holds the bytes of an operation to those of the generated code,
// and tells whether it was rare.
func mustEncodeContent(t *testing.T, op *api.PipelineOp) (rare bool) {
	t.Helper()
	want, err := appendRareContent(nil, op)
	got, from, rare := appendContent([]byte("before"), op)
	switch {
	case rare:
	case err != nil:
		t.Fatalf("%v is written, the generated code fails with %v", op, err)
	case !bytes.Equal(got[from:], want):
		t.Fatalf("%v is written as\n%x, want\n%x", op, got[from:], want)
	}
	return rare
}

func named(op *api.PipelineOp) bool {
	switch kindOf(op) { //nolint:exhaustive // the others have no id
	case kindPut, kindDelete, kindTransaction, kindBatchPut, kindBatchDelete:
		return true
	}
	return false
}

func TestContent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	rare := map[kind]int{}
	common := map[kind]int{}
	for range 20_000 {
		op := &api.PipelineOp{}
		randomMessage(rng, op.ProtoReflect())
		if !named(op) {
			continue
		}
		if mustEncodeContent(t, op) {
			rare[kindOf(op)]++
		} else {
			common[kindOf(op)]++
		}
	}
	for _, k := range []kind{kindPut, kindDelete, kindTransaction, kindBatchPut, kindBatchDelete} {
		if common[k] < 500 || rare[k] < 20 {
			t.Errorf("kind %d: %d were written and %d were rare: too few to tell", k, common[k], rare[k])
		}
	}
}

// Messages without what decoding always gives are left to the generated code.
func TestContentWithoutMessages(t *testing.T) {
	for _, q := range []*api.TransactionRequest{
		{Checks: []*api.TransactionCheck{nil}},
		{Then: []*api.TransactionOp{nil}},
		{Then: []*api.TransactionOp{{}}},
		{Then: []*api.TransactionOp{{Op: &api.TransactionOp_Put{}}}},
		{Then: []*api.TransactionOp{{Op: &api.TransactionOp_Delete{}}}},
		{Then: []*api.TransactionOp{{Op: &api.TransactionOp_Get{}}}},
		{Then: []*api.TransactionOp{{Op: &api.TransactionOp_Touch{}}}},
		{Otherwise: []*api.TransactionOp{{Op: &api.TransactionOp_Check{}}}},
	} {
		if op := (&api.PipelineOp{Op: &api.PipelineOp_Transaction{Transaction: q}}); !mustEncodeContent(t, op) {
			t.Errorf("%v was written", q)
		}
	}
}

// Hashes are kept in records: they stay what they are.
func TestContentHashStays(t *testing.T) {
	for _, c := range []struct {
		op   *api.PipelineOp
		want uint64
	}{{benchPut(), 0x3f0015343c506cdd}, {benchTransaction(), 0xe799d1e113121489}} {
		if got := (&callState{call: &Call{Op: c.op}}).contentHash(); got != c.want {
			t.Errorf("%v hashes to %#x, want %#x", c.op, got, c.want)
		}
	}
}

func FuzzContent(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		op := &api.PipelineOp{}
		randomMessage(rng, op.ProtoReflect())
		if b, err := proto.Marshal(op); err == nil && named(op) {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		op := &api.PipelineOp{}
		if proto.Unmarshal(b, op) == nil && named(op) {
			mustEncodeContent(t, op)
		}
	})
}
