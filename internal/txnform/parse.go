package txnform

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"

	"go.yaml.in/yaml/v3"

	"kvstore/internal/fault"
	"kvstore/internal/jsondoc"
)

// Parse reads a document of JSON or YAML. Its errors are invalid_argument and name the
// path in the document and the line.
func Parse(document []byte) (*Form, error) {
	if json.Valid(document) {
		return ParseJSON(document)
	}
	form, err := ParseYAML(document)
	if err != nil && bytes.HasPrefix(bytes.TrimSpace(document), []byte("{")) && !isYAML(document) {
		return ParseJSON(document) // whose error is of what was meant
	}
	return form, err
}

// ParseJSON reads a document of JSON.
func ParseJSON(document []byte) (*Form, error) {
	form := new(Form)
	return form, form.decode(document)
}

// ParseYAML reads a document of YAML.
func ParseYAML(document []byte) (*Form, error) {
	root, err := parseYAML(document)
	if err != nil {
		return nil, err
	}
	text, err := appendJSON(nil, root)
	if err != nil {
		return nil, err
	}
	form := &Form{root: root}
	return form, form.decode(text)
}

func isYAML(document []byte) bool {
	_, err := parseYAML(document)
	return err == nil
}

// decode fills the form from JSON, which YAML has become before.
func (f *Form) decode(text []byte) error {
	err := jsondoc.Decode(text, f)
	var e *jsondoc.Error
	if !errors.As(err, &e) {
		return err
	}
	if f.root != nil {
		e.Line = nodeAt(f.root, e.Path).Line
	}
	return e.Fault()
}

// located adds the line to an error about a member of a form that was YAML.
func (f *Form) located(err error) error {
	var e *fault.Error
	if f.root == nil || !errors.As(err, &e) || e.Details["member"] == "" {
		return err
	}
	path := []any{e.Details["member"]}
	if list := e.Details["list"]; list != "" {
		item, _ := strconv.Atoi(e.Details["item"])
		path = []any{list, item, e.Details["member"]}
	}
	e.Details["line"] = strconv.Itoa(nodeAt(f.root, path).Line)
	return e
}

// nodeAt is the node that a path leads to, or the last one on the way.
func nodeAt(n *yaml.Node, path []any) *yaml.Node {
	for _, step := range path {
		next := child(n, step)
		if next == nil {
			return n
		}
		n = next
	}
	return n
}

func child(n *yaml.Node, step any) *yaml.Node {
	switch s := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && s < len(n.Content) {
			return n.Content[s]
		}
	case string:
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == s {
				return n.Content[i+1]
			}
		}
	}
	return nil
}
