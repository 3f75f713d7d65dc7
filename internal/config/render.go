package config

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// WriteDefault writes the commented YAML of all defaults; it is a valid file.
// Keys of badger_config are commented out, because a value that is given wins
// over the memory budget.
func WriteDefault(w io.Writer) error {
	return write(w, defaults(), form{comments: true})
}

// WriteYAML writes c, complete and without comments.
func WriteYAML(w io.Writer, c *Config) error {
	return write(w, c, form{})
}

// WriteGiven writes only what was given for c, so that everything else goes on
// deriving from it.
func WriteGiven(w io.Writer, c *Config) error {
	return write(w, c, form{onlyGiven: true})
}

type form struct{ comments, onlyGiven bool }

func write(w io.Writer, c *Config, f form) error {
	comments := f.comments
	var b strings.Builder
	if comments {
		b.WriteString("# kvstore configuration: every key with its default.\n")
		b.WriteString("# A key is also a flag (--node.name) and a variable (KVSTORE_NODE_NAME); flags win over variables, variables over this file.\n")
	}
	for _, o := range options {
		if !strings.Contains(o.key, ".") && (!f.onlyGiven || c.Given(o.key)) {
			writeOption(&b, c, o, comments)
		}
	}
	for _, s := range sections {
		if f.onlyGiven && !c.givenIn(s.key) {
			continue
		}
		if comments {
			fmt.Fprintf(&b, "\n# %s\n", s.doc)
		}
		fmt.Fprintf(&b, "%s:\n", s.key)
		for _, o := range options {
			if strings.HasPrefix(o.key, s.key+".") && (!f.onlyGiven || c.Given(o.key)) {
				writeOption(&b, c, o, comments)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Config) givenIn(section string) bool {
	return slices.ContainsFunc(keysOf(section), c.Given)
}

func writeOption(b *strings.Builder, c *Config, o option, comments bool) {
	if o.def == nil && !comments {
		return
	}
	indent, name := "", o.key
	if i := strings.IndexByte(o.key, '.'); i >= 0 {
		indent, name = "  ", o.key[i+1:]
	}
	if comments {
		fmt.Fprintf(b, "\n%s# %s Allowed: %s\n", indent, o.doc, o.at(c).allowed())
	}
	if comments && strings.HasPrefix(o.key, "badger_config.") {
		indent += "# "
	}
	fmt.Fprintf(b, "%s%s: %s", indent, name, yamlValue(c, o, indent))
}

// yamlValue returns o's value as YAML with its newline.
func yamlValue(c *Config, o option, indent string) string {
	switch v := o.at(c).(type) {
	case pendingValue:
		return "{}\n"
	case membersValue:
		return yamlMembers(*v.p, indent)
	case listValue:
		return "[" + strings.Join(*v.p, ", ") + "]\n"
	case boolValue, intValue, oddValue:
		return v.String() + "\n"
	default:
		return yamlScalar(v.String()) + "\n"
	}
}

func yamlMembers(members []Member, indent string) string {
	if len(members) == 0 {
		return "[]\n"
	}
	var b strings.Builder
	b.WriteString("\n")
	for _, m := range members {
		fmt.Fprintf(&b, "%s  - node_id: %s\n%s    address: %s\n%s    role: %s\n",
			indent, yamlScalar(m.NodeID), indent, yamlScalar(m.Address), indent, yamlScalar(m.Role))
		if m.Zone != "" {
			fmt.Fprintf(&b, "%s    zone: %s\n", indent, yamlScalar(m.Zone))
		}
	}
	return b.String()
}

// yamlScalar quotes s where YAML would read something else than this text.
func yamlScalar(s string) string {
	out, err := yaml.Marshal(s)
	if err != nil {
		panic(fmt.Sprintf("config: a string that YAML cannot hold: %q: %v", s, err))
	}
	return strings.TrimSuffix(string(out), "\n")
}

// WriteReference writes the Markdown tables of docs/configuration.md.
func WriteReference(w io.Writer) error {
	c := defaults()
	var b strings.Builder
	row := func(o option) {
		def := o.at(c).String()
		if def != "" {
			def = "`" + def + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", o.key, def, strings.ReplaceAll(o.at(c).allowed(), "|", "\\|"), o.doc)
	}
	head := "| key | default | allowed | what it is |\n| --- | --- | --- | --- |\n"
	b.WriteString("### Whole node\n\n" + head)
	for _, o := range options {
		if !strings.Contains(o.key, ".") {
			row(o)
		}
	}
	for _, s := range sections {
		fmt.Fprintf(&b, "\n### %s\n\n%s\n\n%s", s.key, s.doc, head)
		for _, o := range options {
			if strings.HasPrefix(o.key, s.key+".") {
				row(o)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Effective returns the settings of storage and memory as they are in force,
// by key, for Status.
func (c *Config) Effective() map[string]string {
	out := map[string]string{}
	for _, o := range options {
		if strings.HasPrefix(o.key, "badger_config.") {
			out[o.key] = o.at(c).String()
		}
	}
	b := c.Budget()
	out["profile"] = c.Profile
	out["memory_budget"] = b.Total.String()
	out["history_window"] = formatDuration(c.HistoryWindow)
	for name, size := range map[string]Size{
		"delta": b.Delta, "run_indexes": b.Runs, "record_cache": b.Records, "raft_log_cache": b.RaftCache, "proposals": b.Proposals, "frames": b.Frames, "requests": b.Requests,
	} {
		out["memory_budget."+name] = size.String()
	}
	return out
}
