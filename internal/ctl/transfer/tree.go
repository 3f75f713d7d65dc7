package transfer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// impliedMode is the mode of a directory that needs no record of its own.
const impliedMode fs.FileMode = 0o755

// tree is a directory to import. Files, symbolic links (not followed), empty
// directories and directories with an unusual mode become records.
type tree struct {
	dir    string
	prefix string
	// bad reports a path that cannot be read; its error ends the walk.
	bad func(name string, err error) error
	// special reports a path that is no file, link or directory.
	special func(name string)
}

// walk emits the tree in name order.
func (t *tree) walk(ctx context.Context, emit func(item) error) error {
	info, err := os.Stat(t.dir)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a directory", t.dir)
	}
	return t.walkDir(ctx, "", emit)
}

func (t *tree) walkDir(ctx context.Context, rel string, emit func(item) error) error {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	entries, err := os.ReadDir(filepath.Join(t.dir, rel))
	if err != nil {
		return t.bad(rel, err)
	}
	if rel != "" {
		if err := t.emitDir(rel, len(entries) == 0, emit); err != nil {
			return err
		}
	}
	for _, e := range entries {
		if err := t.walkEntry(ctx, path.Join(rel, e.Name()), e, emit); err != nil {
			return err
		}
	}
	return nil
}

func (t *tree) walkEntry(ctx context.Context, rel string, e fs.DirEntry, emit func(item) error) error {
	switch {
	case e.IsDir():
		return t.walkDir(ctx, rel, emit)
	case e.Type().IsRegular(), e.Type()&fs.ModeSymlink != 0:
		info, err := e.Info()
		if err != nil {
			return t.bad(rel, err)
		}
		return t.emit(rel, info, emit)
	default:
		t.special(rel)
		return nil
	}
}

func (t *tree) emitDir(rel string, empty bool, emit func(item) error) error {
	info, err := os.Stat(filepath.Join(t.dir, rel))
	if err != nil {
		return t.bad(rel, err)
	}
	if !empty && info.Mode().Perm() == impliedMode {
		return nil
	}
	return t.emit(rel, info, emit)
}

// emit makes the item of one path. Its etag changes with what is stored.
func (t *tree) emit(rel string, info fs.FileInfo, emit func(item) error) error {
	key, raw := keyPath(rel)
	if raw != "" {
		if _, err := os.Lstat(filepath.Join(t.dir, key)); err == nil {
			return t.bad(rel, fmt.Errorf("its key %q is also the name of another file", key))
		}
	}
	meta := map[string]string{metaMode: fmt.Sprintf("%04o", info.Mode().Perm())}
	if raw != "" {
		meta[metaPath] = raw
	}
	it := item{name: rel, size: info.Size()}
	full := filepath.Join(t.dir, rel)
	var load func() ([]byte, string, error)
	switch {
	case info.IsDir():
		key += "/"
		meta[metaType] = typeDir
		it.size = 0
		load = func() ([]byte, string, error) { return nil, "inode/directory", nil }
	case info.Mode()&fs.ModeSymlink != 0:
		meta = map[string]string{metaType: typeLink}
		if raw != "" {
			meta[metaPath] = raw
		}
		load = func() ([]byte, string, error) { return readLink(full) }
	default:
		meta[metaTime] = info.ModTime().UTC().Format(time.RFC3339Nano)
		load = func() ([]byte, string, error) { return readFile(full, rel) }
	}
	it.key = t.prefix + key
	it.etag = strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36) + "-" + info.Mode().String()
	it.load = func() (client.PutItem, error) {
		value, contentType, err := load()
		if err != nil {
			return client.PutItem{}, err
		}
		sum := record.Checksum(value)
		return client.PutItem{Key: it.key, Value: value, ContentType: contentType, Checksum: &sum, Metadata: meta}, nil
	}
	return emit(it)
}

func readLink(full string) ([]byte, string, error) {
	target, err := os.Readlink(full)
	return []byte(target), "inode/symlink", err
}

// readFile reads a file that must fit into a value.
func readFile(full, rel string) ([]byte, string, error) {
	f, err := os.Open(full)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }()
	var b bytes.Buffer
	if info, err := f.Stat(); err == nil && info.Size() > MaxValueBytes {
		return nil, "", tooLarge(info.Size())
	} else if err == nil {
		b.Grow(int(info.Size()) + bytes.MinRead)
	}
	n, err := io.Copy(&b, io.LimitReader(f, MaxValueBytes+1))
	if err != nil {
		return nil, "", err
	}
	if n > MaxValueBytes {
		return nil, "", tooLarge(n)
	}
	return b.Bytes(), ContentType(rel, b.Bytes()), nil
}

// errTooLarge marks a file that does not fit into a value.
var errTooLarge = errors.New("value_too_large")

func tooLarge(n int64) error {
	return fmt.Errorf("%w: file is larger than a value may be (limit=%d, actual=%d)", errTooLarge, MaxValueBytes, n)
}

// textTypes are types that the platform's tables often lack.
var textTypes = map[string]string{
	".go": "text/x-go; charset=utf-8", ".md": "text/markdown; charset=utf-8", ".txt": "text/plain; charset=utf-8",
	".yaml": "application/yaml", ".yml": "application/yaml", ".json": "application/json", ".toml": "application/toml",
	".proto": "text/x-protobuf; charset=utf-8", ".sh": "text/x-shellscript; charset=utf-8",
}

// ContentType guesses a MIME type from a file's name, else from its bytes.
func ContentType(name string, b []byte) string {
	ext := strings.ToLower(path.Ext(name))
	if t, ok := textTypes[ext]; ok {
		return t
	}
	if t := mime.TypeByExtension(ext); t != "" {
		return t
	}
	if len(b) == 0 {
		return "application/octet-stream"
	}
	return http.DetectContentType(b)
}
