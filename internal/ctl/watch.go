package ctl

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// watchFlags choose what is watched, and from where.
type watchFlags struct {
	prefix, start, end, token string
	from                      uint64
	previous, keysOnly, marks bool
	tags                      map[string]string
	limit                     int
}

func (a *app) watchCmd() *cobra.Command {
	var w watchFlags
	cmd := &cobra.Command{
		Use: "watch [KEY]", Short: "Print changes as they happen",
		Long: "Print changes as they happen: of one key, of those with --prefix, of a range, or of the namespace.\n" +
			"It goes on by itself when a node fails, without a gap and without repeating anything.\n" +
			"With -o json or yaml the last event of each revision has the token to go on from with --token.",
		Example: "  kvctl watch greeting\n  kvctl watch --prefix user: --prev -o json\n  kvctl watch --prefix user: --from 117684855082450944",
		Args:    usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && (w.prefix != "" || w.start != "" || w.end != "") {
				return usagef("a key, or --prefix, or --start and --end")
			}
			c, err := a.client(cmd.Context())
			if err != nil {
				return err
			}
			return a.watch(cmd, c, w, w.options(strings.Join(args, "")))
		},
	}
	f := cmd.Flags()
	f.StringVar(&w.prefix, "prefix", "", "keys that begin with this")
	f.StringVar(&w.start, "start", "", "first key (inclusive)")
	f.StringVar(&w.end, "end", "", "last key (exclusive)")
	f.Uint64Var(&w.from, "from", 0, "what was written after this revision; 0 means from now on")
	f.StringVar(&w.token, "token", "", "go on from an event's token")
	f.BoolVar(&w.previous, "prev", false, "with the record that each event replaced")
	f.BoolVar(&w.keysOnly, "keys-only", false, "without values")
	f.BoolVar(&w.marks, "progress", false, "also print how far the watch is, every few seconds")
	f.IntVar(&w.limit, "limit", 0, "stop after this many events; 0 means never")
	f.StringToStringVar(&w.tags, "tag", nil, "only records that have or had this tag, name=value; may be repeated")
	return cmd
}

func (w watchFlags) options(key string) []client.WatchOption {
	opts := []client.WatchOption{client.WithPrefix(w.prefix), client.WithRange(w.start, w.end), client.WithTagFilter(w.tags), client.FromRevision(w.from)}
	if key != "" {
		opts = append(opts, client.OnKey(key))
	}
	if w.token != "" {
		opts = append(opts, client.Resume(w.token), client.FromRevision(0))
	}
	if w.previous {
		opts = append(opts, client.WithPrevious())
	}
	if w.keysOnly {
		opts = append(opts, client.KeysOnly())
	}
	return opts
}

// watchedEvent is an event as JSON.
type watchedEvent struct {
	Type     string       `json:"type"`
	Revision string       `json:"revision"`
	Key      string       `json:"key,omitempty"`
	Reason   string       `json:"reason,omitempty"`
	Record   *record.JSON `json:"record,omitempty"`
	Previous *record.JSON `json:"previous,omitempty"`
	Token    string       `json:"token,omitempty"`
}

func (a *app) watch(cmd *cobra.Command, c *client.Client, w watchFlags, opts []client.WatchOption) error {
	left := w.limit
	for u, err := range c.Watch(cmd.Context(), opts...) {
		if err != nil {
			return err
		}
		if len(u.Events) == 0 && w.marks {
			if err := a.printEvent(watchedEvent{Type: "progress", Revision: number(u.Revision), Token: u.Token}, client.Record{}); err != nil {
				return err
			}
		}
		for i, ev := range u.Events {
			if err := a.printEvent(eventOf(ev, w.keysOnly, i+1 == len(u.Events), u.Token), ev.Record); err != nil {
				return err
			}
			if left--; left == 0 {
				return nil
			}
		}
	}
	return nil
}

func eventOf(ev client.Event, keysOnly, last bool, token string) watchedEvent {
	e := watchedEvent{Type: ev.Type.String(), Revision: number(ev.Record.Revision), Key: ev.Record.Key, Reason: ev.Reason}
	if ev.Type == client.EventPut {
		r := record.From(ev.Record, !keysOnly)
		e.Record = &r
	}
	if ev.Previous != nil {
		r := record.From(*ev.Previous, !keysOnly && (len(ev.Previous.Value) > 0 || ev.Previous.Size == 0))
		e.Previous = &r
	}
	if last {
		e.Token = token
	}
	return e
}

func (a *app) printEvent(e watchedEvent, rec client.Record) error {
	if a.format(formatTable) == formatJSON {
		return a.document(e)
	}
	out := bufio.NewWriter(a.Out)
	_, _ = fmt.Fprintf(out, "%s %s", e.Revision, e.Type)
	if e.Type != "progress" {
		_, _ = fmt.Fprintf(out, " %s", oneLine([]byte(e.Key)))
	}
	switch {
	case e.Reason != "":
		_, _ = fmt.Fprintf(out, " (%s)", e.Reason)
	case len(rec.Value) > 0:
		_, _ = fmt.Fprintf(out, " %s", oneLine(rec.Value))
	}
	_ = out.WriteByte('\n') // Flush tells
	return out.Flush()
}

// oneLine is text on one line as it is, anything else quoted, both cut.
func oneLine(b []byte) string {
	const most = 200
	cut := ""
	if len(b) > most {
		b, cut = b[:most], "..."
	}
	plain := utf8.Valid(b) && strings.IndexFunc(string(b), func(r rune) bool { return !unicode.IsPrint(r) }) < 0
	if plain {
		return string(b) + cut
	}
	return strconv.Quote(string(b)) + cut
}
