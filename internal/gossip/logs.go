package gossip

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

const (
	// logEvery is the shortest interval between two of memberlist's warnings:
	// it repeats them per packet and probe.
	logEvery = 10 * time.Second
	// maxLogBytes cuts a line, which may show what others sent.
	maxLogBytes = 300
)

// logs turns memberlist's lines into ours, and counts what it refuses: it says
// so nowhere else. A text that changes with its version costs a count only.
type logs struct {
	logger *slog.Logger
	drops  *drops

	mu     sync.Mutex
	last   time.Time // guarded by mu
	silent int       // warnings since then; guarded by mu
}

func newLogs(logger *slog.Logger, d *drops) *log.Logger {
	return log.New(&logs{logger: logger, drops: d}, "", 0)
}

// refusals are texts of memberlist, by what they mean.
var refusals = []struct {
	text string
	why  reason
}{
	{"Decrypt packet failed", dropDecrypt},
	{"no installed keys could decrypt", dropDecrypt},
	{"remote state is not encrypted", dropDecrypt},
	{"remote state is encrypted", dropDecrypt},
	{"not sealed as it should be", dropDecrypt},
	{"unacceptable label", dropLabel},
	{"Failed to decode", dropMalformed},
	{"Failed to decompress", dropMalformed},
	{"invalid checksum", dropMalformed},
	{"not supported", dropMalformed},
	{"handler queue full", dropBusy},
}

// Write implements io.Writer for one line.
func (l *logs) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	level, message, found := strings.Cut(strings.TrimPrefix(text, "["), "]")
	if !found {
		level, message = "WARN", text
	}
	message = strings.TrimPrefix(strings.TrimSpace(message), "memberlist: ")
	l.count(message)
	switch level {
	case "DEBUG":
		if !strings.Contains(message, "from=pipe") { // the view looks
			l.write(slog.LevelDebug, message)
		}
	case "INFO":
		l.write(slog.LevelDebug, message)
	default:
		l.warn(message)
	}
	return len(line), nil
}

func (l *logs) count(message string) {
	for _, r := range refusals {
		if strings.Contains(message, r.text) {
			l.drops.count(r.why)
			return
		}
	}
}

func (l *logs) write(level slog.Level, message string, args ...any) {
	if len(message) > maxLogBytes {
		message = message[:maxLogBytes] + "..."
	}
	l.logger.Log(context.Background(), level, "memberlist", append(args, "says", message)...)
}

func (l *logs) warn(message string) {
	l.mu.Lock()
	worth := time.Since(l.last) >= logEvery
	silent := l.silent
	if worth {
		l.last, l.silent = time.Now(), 0
	} else {
		l.silent++
	}
	l.mu.Unlock()
	if worth {
		l.write(slog.LevelWarn, message, "not_logged_before", silent)
	} else {
		l.write(slog.LevelDebug, message)
	}
}
