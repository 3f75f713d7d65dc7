package osfs

import (
	"os"

	"golang.org/x/sys/windows"
)

var noSpaceCodes = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL}

func syncData(f *os.File) error { return f.Sync() }

func reserve(*os.File, int64, int64) error { return nil }

// syncDir does nothing: Windows cannot flush a directory, and NTFS journals
// its changes in order.
func syncDir(string) error { return nil }

func free(path string) (uint64, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, err
	}
	var available uint64
	if err := windows.GetDiskFreeSpaceEx(name, &available, nil, nil); err != nil {
		return 0, &os.PathError{Op: "GetDiskFreeSpaceEx", Path: path, Err: err}
	}
	return available, nil
}
