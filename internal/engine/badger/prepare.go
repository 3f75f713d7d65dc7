package badger

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	badgerdb "github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/table"

	"kvstore/internal/fault"
)

// prepare makes what a power cut can leave acceptable to Badger, and refuses
// what would end the process while Badger opens it.
func prepare(dir string, o badgerdb.Options) error {
	if err := makeDir(dir); err != nil {
		return err
	}
	if err := removeEmptyLogs(dir); err != nil {
		return err
	}
	if err := mendManifest(filepath.Join(dir, badgerdb.ManifestFilename)); err != nil {
		return err
	}
	return checkTables(dir, o)
}

// makeDir creates dir and makes its own entry durable.
func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("create badger directory: %w", err)
	}
	return syncDir(filepath.Dir(dir))
}

// removeEmptyLogs removes logs without a byte: a power cut can keep the name
// of a new file and lose its size, and Badger does not open it then.
func removeEmptyLogs(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list badger directory: %w", err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, memtableSuffix) && !strings.HasSuffix(name, valueLogSuffix) {
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return fmt.Errorf("list badger directory: %w", err)
		}
		if info.Size() > 0 {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove empty log: %w", err)
		}
	}
	return syncDir(dir)
}

// Badger's manifest: 8 bytes of magic, then records
//
//	[length 4][CRC32C of the changes 4][changes]
//
// in big endian, each synced before the next one is written.
const (
	manifestMagicBytes  = 8
	manifestHeaderBytes = 8
)

// mendManifest cuts off a torn last record. Badger does so only when the file
// ends in it, not when its length is there and its bytes are not.
func mendManifest(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read badger manifest: %w", err)
	}
	at := manifestMagicBytes
	for len(b)-at >= manifestHeaderBytes {
		length := int(binary.BigEndian.Uint32(b[at:]))
		end := at + manifestHeaderBytes + length
		if end > len(b) {
			return nil // Badger's part
		}
		torn := crc32.Checksum(b[at+manifestHeaderBytes:end], castagnoli) != binary.BigEndian.Uint32(b[at+4:])
		if torn && end == len(b) {
			if err := os.Truncate(path, int64(at)); err != nil {
				return fmt.Errorf("cut badger manifest: %w", err)
			}
			return syncFile(path)
		}
		if torn {
			return fault.New(fault.Corruption, "badger manifest is damaged", "offset", at, "length", len(b))
		}
		at = end
	}
	return nil
}

// checkTables looks for tables that are missing or end in zeroes; Badger
// verifies the others.
func checkTables(dir string, o badgerdb.Options) error {
	f, err := os.Open(filepath.Join(dir, badgerdb.ManifestFilename))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read badger manifest: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	manifest, _, err := badgerdb.ReplayManifestFile(f, o.ExternalMagicVersion, o)
	if err != nil {
		return fault.Wrap(fault.Corruption, err, "badger manifest is damaged")
	}
	for id := range manifest.Tables {
		if err := checkTable(table.NewFilename(id, dir)); err != nil {
			return err
		}
	}
	return nil
}

// checkTable looks at the last number of a table, the length of its checksum.
func checkTable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Corruption, "badger table is missing", "file", filepath.Base(path))
	}
	if err != nil {
		return fmt.Errorf("check badger table: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("check badger table: %w", err)
	}
	var last [4]byte
	if info.Size() >= int64(len(last)) {
		if _, err := f.ReadAt(last[:], info.Size()-int64(len(last))); err != nil {
			return fmt.Errorf("check badger table: %w", err)
		}
	}
	if length := int64(binary.BigEndian.Uint32(last[:])); length == 0 || length > info.Size()-int64(len(last)) {
		return fault.New(fault.Corruption, "badger table is damaged",
			"file", filepath.Base(path), "length", info.Size())
	}
	return nil
}
