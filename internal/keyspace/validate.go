package keyspace

import (
	"unicode/utf8"

	"kvstore/internal/fault"
)

// MaxNamespaceNameBytes is the longest name of a namespace.
const MaxNamespaceNameBytes = 128

// ValidateKey reports whether key may be a user key (S3.7): not empty, at most
// MaxKeyBytes bytes, valid UTF-8. Errors are fault.KeyTooLarge and
// fault.InvalidKey; they hold the limit and the actual value.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return fault.New(fault.InvalidKey, "key is empty", "limit_min_bytes", 1, "actual_bytes", 0)
	case len(key) > MaxKeyBytes:
		return fault.New(fault.KeyTooLarge, "key is too large",
			"limit_bytes", MaxKeyBytes, "actual_bytes", len(key))
	case !utf8.ValidString(key):
		return fault.New(fault.InvalidKey, "key is not valid UTF-8",
			"offset", invalidOffset(key), "actual_bytes", len(key))
	}
	return nil
}

// ValidateNamespaceName reports whether name may name a namespace: 1 to
// MaxNamespaceNameBytes letters, digits and . _ : -, beginning with a letter
// or digit. Names that begin with _ are reserved.
func ValidateNamespaceName(name string) error {
	switch {
	case name == "":
		return fault.New(fault.InvalidArgument, "namespace name is empty",
			"limit_min_bytes", 1, "actual_bytes", 0)
	case len(name) > MaxNamespaceNameBytes:
		return fault.New(fault.InvalidArgument, "namespace name is too long",
			"limit_bytes", MaxNamespaceNameBytes, "actual_bytes", len(name))
	case name[0] == '_':
		return fault.New(fault.InvalidArgument, "namespace names that begin with _ are reserved",
			"namespace", name)
	case !alphanumeric(name[0]):
		return fault.New(fault.InvalidArgument, "namespace name must begin with a letter or digit",
			"offset", 0)
	}
	for i := range len(name) {
		if !alphanumeric(name[i]) && !separator(name[i]) {
			return fault.New(fault.InvalidArgument, "namespace name holds a character that is not allowed",
				"allowed", "letters, digits, . _ : -", "offset", i)
		}
	}
	return nil
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func separator(c byte) bool { return c == '.' || c == '_' || c == ':' || c == '-' }

// invalidOffset returns the offset of the first byte that is not UTF-8.
func invalidOffset(s string) int {
	for i, r := range s {
		if r != utf8.RuneError {
			continue
		}
		if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
			return i
		}
	}
	return len(s)
}
