package jsondoc

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// loneSurrogate returns the offset of a \u escape that is half a pair, or -1.
func loneSurrogate(body []byte) int {
	for i := 0; i < len(body); i++ {
		if body[i] != '\\' {
			continue
		}
		r, ok := escaped(body[i:])
		if !ok {
			i++ // the escaped character, whatever it is
			continue
		}
		if !utf16.IsSurrogate(r) {
			i += 5
			continue
		}
		low, _ := escaped(body[min(i+6, len(body)):])
		if utf16.DecodeRune(r, low) == utf8.RuneError {
			return i
		}
		i += 11
	}
	return -1
}

// escaped reads a backslash, a u and four hexadecimal digits at the start of b.
func escaped(b []byte) (rune, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return rune(n), err == nil
}
