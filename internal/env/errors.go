package env

import "errors"

// ErrNoSpace marks a write, creation or preallocation refused because the
// disk is full. File systems wrap it; test it with errors.Is.
var ErrNoSpace = errors.New("no space left on device")
