package transfer

import (
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Names of the metadata that keeps what a key and its value cannot say.
const (
	metaMode = "kvctl.mode"  // permission bits, octal
	metaTime = "kvctl.mtime" // RFC 3339 with nanoseconds, UTC
	metaType = "kvctl.type"  // dir or symlink; absent for a file
	metaPath = "kvctl.path"  // base64 of a path that is not UTF-8

	typeDir  = "dir"
	typeLink = "symlink"
)

// errPath marks a key that is no path below the target.
var errPath = errors.New("not a path below the target directory")

// keyPath returns the part of a key that names a path (with slashes). Bytes
// that are not UTF-8 become %XX, and raw then holds the path in base64.
func keyPath(rel string) (key, raw string) {
	if utf8.ValidString(rel) {
		return rel, ""
	}
	var b strings.Builder
	for i := 0; i < len(rel); {
		r, n := utf8.DecodeRuneInString(rel[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, "%%%02X", rel[i])
		} else {
			b.WriteString(rel[i : i+n])
		}
		i += n
	}
	return b.String(), base64.StdEncoding.EncodeToString([]byte(rel))
}

// recordPath returns the path (with slashes, below the target) of a record.
// Only clean relative paths pass: no empty, "." or ".." parts, nothing
// absolute, nothing the platform reserves.
func recordPath(key, prefix string, meta map[string]string) (string, error) {
	rel := strings.TrimPrefix(key, prefix)
	if raw, ok := meta[metaPath]; ok {
		b, err := base64.StdEncoding.DecodeString(raw)
		if err != nil {
			return "", fmt.Errorf("metadata %s of key %q: %w", metaPath, key, err)
		}
		rel = string(b)
	}
	if meta[metaType] == typeDir {
		rel = strings.TrimSuffix(rel, "/")
	}
	if rel == "" || rel == "." || path.Clean(rel) != rel || strings.ContainsRune(rel, 0) ||
		runtime.GOOS == "windows" && strings.Contains(rel, `\`) || !filepath.IsLocal(filepath.FromSlash(rel)) {
		return "", fmt.Errorf("key %q: %w", key, errPath)
	}
	return rel, nil
}

// linkAllowed says whether a symbolic link at rel may point to target: only
// to paths inside the tree.
func linkAllowed(rel, target string) bool {
	target = filepath.ToSlash(target)
	return !path.IsAbs(target) && filepath.IsLocal(filepath.FromSlash(path.Join(path.Dir(rel), target)))
}

// parseMode reads permission bits; other bits are refused.
func parseMode(s string) (uint32, error) {
	m, err := strconv.ParseUint(s, 8, 32)
	if err != nil || m > 0o777 {
		return 0, fmt.Errorf("metadata %s: %q is not a mode from 0000 to 0777", metaMode, s)
	}
	return uint32(m), nil
}
