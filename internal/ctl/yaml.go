package ctl

import (
	"bytes"
	"fmt"
	"io"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"kvstore/internal/ctl/record"
)

// What is printed as JSON can be printed as YAML of the same fields: one value is a
// document; what a command lists is one document, a sequence that is written item
// by item; what has no end (watch, elect --observe, lease keep-alive) are documents
// that begin with ---.

// json prints v as one line, or as a YAML document of the same fields.
func (a *app) json(v any) error {
	if a.opts.output != formatYAML {
		return record.Write(a.Out, v)
	}
	return writeYAML(a.Out, v, false)
}

// document prints v as one of many that have no end.
func (a *app) document(v any) error {
	if a.opts.output == formatYAML {
		if _, err := fmt.Fprintln(a.Out, "---"); err != nil {
			return err
		}
	}
	return a.json(v)
}

// items prints values one by one: as lines of JSON, or as one YAML sequence.
type items struct {
	out  io.Writer
	yaml bool
	// single makes the only value a document instead of a sequence.
	single bool
	n      int
}

func (a *app) items(out io.Writer) *items { return &items{out: out, yaml: a.opts.output == formatYAML} }

// one is for commands that show one of what others list.
func (a *app) one() *items {
	return &items{out: a.Out, yaml: a.opts.output == formatYAML, single: true}
}

func (i *items) add(v any) error {
	i.n++
	if !i.yaml {
		return record.Write(i.out, v)
	}
	return writeYAML(i.out, v, !i.single)
}

// end makes a sequence of nothing one too.
func (i *items) end() error {
	if !i.yaml || i.n > 0 {
		return nil
	}
	_, err := fmt.Fprintln(i.out, "[]")
	return err
}

func writeYAML(out io.Writer, v any, item bool) error {
	var text bytes.Buffer
	if err := record.Write(&text, v); err != nil {
		return err
	}
	var doc yaml.Node // JSON is YAML, and a node keeps the order of fields
	if err := yaml.Unmarshal(speakable(text.Bytes()), &doc); err != nil {
		return fmt.Errorf("output: %w", err)
	}
	block(&doc)
	top := &doc
	if item {
		top = &yaml.Node{Kind: yaml.SequenceNode, Content: doc.Content}
	}
	b, err := yaml.Marshal(top)
	if err != nil {
		return fmt.Errorf("output: %w", err)
	}
	_, err = out.Write(b)
	return err
}

// speakable escapes the characters that JSON may have as they are and YAML not: DEL,
// the C1 controls, the byte order mark and what is no character.
func speakable(text []byte) []byte {
	var out []byte
	done := 0
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRune(text[i:])
		if r >= 0x7f && r <= 0x9f || r == 0xfeff || r == 0xfffe || r == 0xffff {
			out = fmt.Appendf(append(out, text[done:i]...), `\u%04x`, r)
			done = i + size
		}
		i += size
	}
	if done == 0 {
		return text
	}
	return append(out, text[done:]...)
}

// block gives a document YAML's own style, except for what is empty.
func block(n *yaml.Node) {
	n.Style &^= yaml.DoubleQuotedStyle
	if len(n.Content) > 0 {
		n.Style &^= yaml.FlowStyle
	}
	for _, c := range n.Content {
		block(c)
	}
}
