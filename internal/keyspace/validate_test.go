package keyspace

import (
	"errors"
	"strings"
	"testing"

	"kvstore/internal/fault"
)

// S3.7, A3: at most 1 KB of UTF-8; errors name limit and actual value.
func TestValidateKey(t *testing.T) {
	for _, good := range []string{"a", "\x00", "a b/c?d#e", "ключ", "\ufffd", strings.Repeat("k", 1024)} {
		if err := ValidateKey(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string]fault.Code{
		"":                        fault.InvalidKey,
		"a\xff":                   fault.InvalidKey,
		"\ufffda\xc3\x28":         fault.InvalidKey,
		strings.Repeat("k", 1025): fault.KeyTooLarge,
	} {
		if got := fault.CodeOf(ValidateKey(bad)); got != want {
			t.Errorf("%.20q: %s, want %s", bad, got, want)
		}
	}
	var e *fault.Error
	if !errors.As(ValidateKey(strings.Repeat("k", 1025)), &e) || e.Details["limit_bytes"] != "1024" || e.Details["actual_bytes"] != "1025" {
		t.Errorf("details are %v", e.Details)
	}
	if !errors.As(ValidateKey("\ufffda\xc3\x28"), &e) || e.Details["offset"] != "4" {
		t.Errorf("details are %v", e.Details)
	}
}

func TestValidateNamespaceName(t *testing.T) {
	for _, good := range []string{"default", "app:", "a", "9", "a.b-c_d:E", strings.Repeat("n", MaxNamespaceNameBytes)} {
		if err := ValidateNamespaceName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "_system", "_x", "-a", ".", "a b", "a/b", "é", "a\x00", strings.Repeat("n", MaxNamespaceNameBytes+1)} {
		if got := fault.CodeOf(ValidateNamespaceName(bad)); got != fault.InvalidArgument {
			t.Errorf("%.20q: %q, want invalid_argument", bad, got)
		}
	}
}
