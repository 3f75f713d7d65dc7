package gossip

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"

	"kvstore/internal/fault"
)

const (
	maxKeys         = 8
	maxKeyFileBytes = 16 << 10
)

// keys keeps memberlist's keyring as the key file says. The file is polled, as
// TLS files are, and a change is taken when two polls read the same, so that a
// file is not taken half-written. A file that cannot be used changes nothing.
// No key is ever part of an error or of a log line.
type keys struct {
	file   string
	logger *slog.Logger
	ring   *memberlist.Keyring

	// Of the goroutine that polls.
	current  [][]byte
	seen     []byte
	refused  string // the last error that was logged
	reloads  atomic.Int64
	failures atomic.Int64
}

// openKeys reads the file, which has to be usable.
func openKeys(file string, logger *slog.Logger) (*keys, error) {
	_, list, err := readKeys(file)
	if err != nil {
		return nil, err
	}
	ring, err := memberlist.NewKeyring(list, list[0])
	if err != nil {
		return nil, fmt.Errorf("gossip.key_file %s: %w", file, err)
	}
	return &keys{file: file, logger: logger, ring: ring, current: list}, nil
}

// CheckKeyFile says what is wrong with a key file, never with which key.
func CheckKeyFile(file string) error {
	_, _, err := readKeys(file)
	return err
}

// watch polls until ctx ends.
func (k *keys) watch(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			k.poll()
		}
	}
}

// poll reads the file once and reports whether new keys are in use.
func (k *keys) poll() bool {
	text, list, err := readKeys(k.file)
	if err != nil {
		k.seen = nil
		if k.refused != err.Error() {
			k.refused = err.Error()
			k.failures.Add(1)
			k.logger.Error("new gossip keys cannot be used, the old ones stay in use", "error", err)
		}
		return false
	}
	k.refused = ""
	if slices.EqualFunc(list, k.current, bytes.Equal) {
		k.seen = nil
		return false
	}
	if k.seen == nil || !bytes.Equal(text, k.seen) {
		k.seen = text
		return false
	}
	k.take(list)
	return true
}

// take makes list the keyring. What is not in it any more is removed last, from
// the end: Keyring.RemoveKey moves what follows the key within an array that
// readers hold, so nothing may follow it.
func (k *keys) take(list [][]byte) {
	for _, key := range list {
		_ = k.ring.AddKey(key) // its length was checked
	}
	for _, key := range slices.Backward(list) { // each to the front: the list's order, then what goes
		_ = k.ring.UseKey(key) // it is there
	}
	for installed := k.ring.GetKeys(); len(installed) > len(list); installed = k.ring.GetKeys() {
		_ = k.ring.RemoveKey(installed[len(installed)-1]) // it is not the first
	}
	k.current, k.seen = list, nil
	k.reloads.Add(1)
	k.logger.Info("took new gossip keys", "keys", len(list))
}

// readKeys returns the file and the different keys in it, at least one.
func readKeys(file string) (text []byte, list [][]byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("gossip.key_file: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err = io.ReadAll(io.LimitReader(f, maxKeyFileBytes+1))
	if err != nil {
		return nil, nil, fmt.Errorf("gossip.key_file: %w", err)
	}
	if list, err = parseKeys(text); err != nil {
		return nil, nil, fmt.Errorf("gossip.key_file %s: %w", file, err)
	}
	return text, list, nil
}

// parseKeys reads one base64 key per line. Empty lines and lines that begin
// with # are skipped.
func parseKeys(text []byte) ([][]byte, error) {
	if len(text) > maxKeyFileBytes {
		return nil, fault.New(fault.InvalidArgument, "the file is too large", "limit", maxKeyFileBytes)
	}
	var list [][]byte
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil { // the error would name a character of the key
			return nil, fault.New(fault.InvalidArgument, "a line is not base64", "line", i+1)
		}
		if err := memberlist.ValidateKey(key); err != nil {
			return nil, fault.New(fault.InvalidArgument, "a key has to have 16, 24 or 32 bytes", "line", i+1, "actual", len(key))
		}
		if !slices.ContainsFunc(list, func(k []byte) bool { return bytes.Equal(k, key) }) {
			list = append(list, key)
		}
	}
	if len(list) == 0 || len(list) > maxKeys {
		return nil, fault.New(fault.InvalidArgument, "the file has to hold at least one key and not too many", "limit", maxKeys, "actual", len(list))
	}
	return list, nil
}
