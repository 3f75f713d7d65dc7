//go:build !linux

package osfs

import "errors"

func openDirect(string) *direct { return nil }

func (*direct) writeDurable([]byte, int64) (int, error) { return 0, errors.ErrUnsupported }
