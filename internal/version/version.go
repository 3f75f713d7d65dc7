// Package version says what this binary is.
package version

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"kvstore/internal/format"
)

// release is set by the build of a release (-ldflags "-X ...").
var release = ""

// String returns the release, or the commit this was built from.
func String() string {
	if release != "" {
		return release
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "devel"
	}
	var commit, dirty string
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+dirty"
			}
		}
	}
	if commit == "" {
		return "devel"
	}
	return "devel-" + commit + dirty
}

// Full adds the format version, the Go version and the platform.
func Full(name string) string {
	return fmt.Sprintf("%s %s (format %d, %s, %s/%s)", name, String(), format.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
