package ctl

import (
	"fmt"
	"strings"

	"kvstore/client"
	"kvstore/internal/ctl/record"
)

// batchOut prints the outcomes of a batch and judges them together.
type batchOut struct {
	app *app
	// views prints the outcomes with -o json or yaml.
	views   *items
	headers string
	// reads says that values are read.
	reads   bool
	columns int
	total   int
	failed  int
	first   error // the first failure that is not the consequence of another
}

func (b *batchOut) add(results []outcome) error {
	rows := make([][]string, 0, len(results))
	for _, r := range results {
		b.note(r.err)
		switch b.app.format(formatTable) {
		case formatJSON:
			if err := b.views.add(r.json()); err != nil {
				return err
			}
		case formatRaw:
			if err := b.raw(r); err != nil {
				return err
			}
		default:
			cells := append([]string{r.key, "ok"}, r.cells...)
			if r.err != nil {
				cells = []string{r.key, string(client.CodeOf(r.err))}
			}
			rows = append(rows, cells)
		}
	}
	if len(rows) == 0 {
		return nil
	}
	headers := b.headers
	b.headers = ""
	b.columns = max(b.columns, len(strings.Fields(headers)))
	for i := range rows { // a short row would end the columns of those below it
		rows[i] = append(rows[i], make([]string, b.columns-len(rows[i]))...)
	}
	return b.app.table(headers, rows)
}

func (b *batchOut) note(err error) {
	b.total++
	if err == nil {
		return
	}
	b.failed++
	if b.first == nil || client.CodeOf(b.first) == client.CodeBatchAborted {
		b.first = err
	}
}

// raw prints values as they are, and nothing but the code of other verbs. What was
// not read has no value: its error must not be taken for one.
func (b *batchOut) raw(r outcome) error {
	var err error
	switch v, isRecord := r.view.(record.JSON); {
	case r.err != nil && b.reads:
		b.app.complain(r.err)
	case r.err != nil:
		_, err = fmt.Fprintln(b.app.Out, client.CodeOf(r.err))
	case isRecord && v.Value != nil:
		_, err = fmt.Fprintln(b.app.Out, *v.Value)
	case isRecord && v.ValueBase64 != nil:
		_, err = fmt.Fprintln(b.app.Out, *v.ValueBase64)
	default:
		_, err = fmt.Fprintln(b.app.Out, "ok")
	}
	return err
}

// json is the outcome with -o json: the result, or the error.
func (r outcome) json() any {
	if r.err == nil {
		return r.view
	}
	return struct {
		Key   string    `json:"key"`
		Error errorView `json:"error"`
	}{r.key, viewError(r.err, "")}
}

// finish says how the batch ended: the code of the failures when all items
// failed, else partial.
func (b *batchOut) finish() error {
	if b.app.format(formatTable) == formatJSON {
		if err := b.views.end(); err != nil {
			return err
		}
	}
	switch b.failed {
	case 0:
		return nil
	case b.total:
		return fmt.Errorf("all %d items failed, the first: %w", b.total, b.first)
	}
	return codeError{error: fmt.Errorf("%d of %d items failed, the first: %w", b.failed, b.total, b.first), code: exitPartial}
}
