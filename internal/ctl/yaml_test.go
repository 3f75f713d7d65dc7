package ctl

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"kvstore/internal/ctl/memserver"
	"kvstore/internal/ctl/target"
)

// -o yaml is one document with the fields and values of -o json, whatever they
// hold, and over several pages.
func TestYAMLIsTheJSON(t *testing.T) {
	isolate(t)
	s := memserver.Start(t)
	t.Setenv(target.EnvEndpoints, s.Addr)
	values := []string{"", "plain", "2", "true", "~", "- a\n- b", "<<", "a: b", "\x7f", "\u0085\u009f", "\ufeffx", "\uffff", "\U0001f600", "\u2028", `"\`, "\xff\x00", "tab\there "}
	var lines strings.Builder
	for i := range listPage + 20 {
		b, err := json.Marshal(map[string]any{"key": fmt.Sprintf("%04d", i), "value": values[i%len(values)]})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%s\n", b)
	}
	if r := kvctl(lines.String(), "batch", "put"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	want, got := kvctl("", "list", "--values", "-o", "json"), kvctl("", "list", "--values", "-o", "yaml")
	if got.code != 0 || want.code != 0 {
		t.Fatalf("%d, %s%s", got.code, got.err, want.err)
	}
	var fromYAML []map[string]any
	if err := yaml.Unmarshal([]byte(got.out), &fromYAML); err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(want.out), "\n")
	if len(rows) != listPage+20 || len(fromYAML) != len(rows) {
		t.Fatalf("%d rows of JSON, %d of YAML", len(rows), len(fromYAML))
	}
	for i, row := range rows {
		var fromJSON map[string]any
		if err := json.Unmarshal([]byte(row), &fromJSON); err != nil {
			t.Fatal(err)
		}
		for name, v := range fromJSON {
			if fmt.Sprint(v) != fmt.Sprint(fromYAML[i][name]) && reflect.TypeOf(v).Kind() == reflect.String {
				t.Fatalf("%s of row %d: %q, want %q", name, i, fromYAML[i][name], v)
			}
		}
	}
}
