package keyspace

import (
	"errors"
	"strings"
	"testing"

	"kvstore/internal/fault"
)

// All records of a lease are in the slot of its id, which is that of keys of the
// default namespace with the same hash part.
func TestSlotsOfLeases(t *testing.T) {
	for _, c := range []struct{ id, like string }{
		{"plain", "plain"},
		{"{jobs}worker-1", "{jobs}anything"},
		{"a{jobs}b", "jobs"},
		{"{}x", "{}x"},
		{strings.Repeat("x", MaxLeaseIDBytes), strings.Repeat("x", MaxLeaseIDBytes)},
	} {
		want := SlotOf(DefaultNamespace, c.like)
		for _, key := range []string{LeaseKey(c.id), LeaseMarkKey(c.id), LeaseKeysPrefix(c.id), LeaseAttachedKey(c.id, "ns", "{other}key")} {
			if got := SlotOf(LeaseNamespace, key); got != want {
				t.Errorf("%q: slot %d, want %d", key, got, want)
			}
		}
	}
	if SlotOf(LeaseNamespace, LeaseKey("a")) == SlotOf(LeaseNamespace, LeaseKey("b")) {
		t.Error("leases without a hash part share a slot")
	}
	if !LeaseNamespace.Reserved() || DefaultNamespace.Reserved() || SystemNamespace.Reserved() || FirstUserNamespace.Reserved() {
		t.Error("reserved namespaces are others")
	}
}

func TestLeaseKeys(t *testing.T) {
	const id = "{jobs}a.b_c:d-1"
	for key, want := range map[string]LeaseRecord{
		LeaseKey(id): LeaseItself, LeaseMarkKey(id): LeaseMarked, LeaseAttachedKey(id, "n", "k"): LeaseAttached,
	} {
		got, what := ParseLeaseKey(key)
		if got != id || what != want {
			t.Errorf("%q is %q, %d", key, got, what)
		}
		if err := ValidateKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
	for _, key := range []string{"", "a", "\x00", "\x00!", "a\x00x", "a\x00!!"} {
		if got, what := ParseLeaseKey(key); what != LeaseUnknown {
			t.Errorf("%q is %q, %d", key, got, what)
		}
	}
	if LeaseAttachedKey(id, "a", "b") == LeaseAttachedKey(id, "ab", "") || LeaseAttachedKey(id, "a", "b") == LeaseAttachedKey(id, "a", "c") {
		t.Error("two keys are attached under one name")
	}
}

func TestValidateLeaseID(t *testing.T) {
	for _, id := range []string{"a", "{jobs}worker-1", "A9._:-{}", "jobs/nightly@2!", strings.Repeat("x", MaxLeaseIDBytes)} {
		if err := ValidateLeaseID(id); err != nil {
			t.Errorf("%q: %v", id, err)
		}
	}
	for id, detail := range map[string]string{
		"": "limit_min_bytes", strings.Repeat("x", MaxLeaseIDBytes+1): "limit_bytes", "a\n": "offset", "a\x7f": "offset", "a b": "offset",
		"a\x00": "offset", "ä": "offset", "\xff": "offset",
	} {
		var f *fault.Error
		if err := ValidateLeaseID(id); !errors.As(err, &f) || f.Code != fault.InvalidArgument || f.Details[detail] == "" {
			t.Errorf("%q: %v", id, err)
		}
	}
}
