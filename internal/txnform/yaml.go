package txnform

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"kvstore/internal/fault"
)

// YAML is turned into the JSON of the same meaning, so that both are decoded in one
// way. What JSON does not have is refused: several documents, anchors and aliases
// (with which a small document can stand for a huge one), keys that are no text, and
// a key twice. Dates are text.

// parseYAML returns the root of the only document.
func parseYAML(document []byte) (*yaml.Node, error) {
	if len(bytes.TrimSpace(document)) == 0 {
		return nil, fault.New(fault.InvalidArgument, "the document is empty")
	}
	d := yaml.NewDecoder(bytes.NewReader(document))
	var root, more yaml.Node
	if err := d.Decode(&root); err != nil {
		return nil, fault.New(fault.InvalidArgument, "the document is not YAML: "+clip(strings.TrimPrefix(err.Error(), "yaml: ")))
	}
	if d.Decode(&more) == nil {
		return nil, fault.New(fault.InvalidArgument, "there is more than one YAML document", "line", more.Line)
	}
	return root.Content[0], nil
}

func badNode(n *yaml.Node, problem string) error {
	return fault.New(fault.InvalidArgument, "the YAML document "+problem, "line", n.Line, "column", n.Column)
}

func appendJSON(dst []byte, n *yaml.Node) ([]byte, error) {
	if n.Anchor != "" || n.Kind == yaml.AliasNode {
		return nil, badNode(n, "uses anchors")
	}
	switch n.Kind {
	case yaml.MappingNode:
		return appendObject(dst, n)
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			var err error
			if dst, err = appendJSON(dst, item); err != nil {
				return nil, err
			}
		}
		return append(dst, ']'), nil
	case yaml.ScalarNode:
		return appendScalar(dst, n)
	case yaml.DocumentNode, yaml.AliasNode:
	}
	return nil, badNode(n, "holds what JSON does not have")
}

func appendObject(dst []byte, n *yaml.Node) ([]byte, error) {
	seen := make(map[string]bool, len(n.Content)/2)
	dst = append(dst, '{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
			return nil, badNode(key, "has a key that is no text")
		case seen[key.Value]:
			return nil, badNode(key, "has the key "+clip(strconv.Quote(key.Value))+" twice")
		}
		seen[key.Value] = true
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendText(dst, key.Value), ':')
		var err error
		if dst, err = appendJSON(dst, n.Content[i+1]); err != nil {
			return nil, err
		}
	}
	return append(dst, '}'), nil
}

func appendScalar(dst []byte, n *yaml.Node) ([]byte, error) {
	switch n.ShortTag() {
	case "!!str", "!!timestamp":
		return appendText(dst, n.Value), nil
	case "!!null":
		return append(dst, "null"...), nil
	case "!!bool":
		var b bool
		if err := n.Decode(&b); err != nil {
			return nil, badNode(n, "has a bad truth value")
		}
		return strconv.AppendBool(dst, b), nil
	case "!!int":
		var v uint64
		if n.Decode(&v) == nil {
			return strconv.AppendUint(dst, v, 10), nil
		}
		var signed int64
		if n.Decode(&signed) == nil {
			return strconv.AppendInt(dst, signed, 10), nil
		}
	}
	return nil, badNode(n, "has a value that is neither text, a whole number nor a truth value; quote text")
}

func appendText(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // text always encodes
	return append(dst, b...)
}

// clip bounds text that an error repeats.
func clip(s string) string {
	const limit = 256
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}
