package record

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"kvstore/client"
)

func TestRoundTrip(t *testing.T) {
	for _, value := range []string{"", "text <&> é\n\t", "\x00\x01", "\xff\xfe", "a\u2028b", `"\`} {
		in := client.Record{
			Key: "k/é\n", Value: []byte(value), ContentType: "text/plain", Encoding: "gzip",
			Checksum: Checksum([]byte(value)), Version: 3, Revision: 1 << 60, Size: uint64(len(value)),
			Tags: map[string]string{"a": "b"}, Metadata: map[string]string{"c": "d"},
			ExpiresAt: time.UnixMilli(1_900_000_000_123),
		}
		var b bytes.Buffer
		if err := Write(&b, From(in, true)); err != nil {
			t.Fatal(err)
		}
		line, err := NewLines(&b).Next()
		if err != nil {
			t.Fatal(err)
		}
		j, err := Parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out, err := j.Put()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if out.Key != in.Key || string(out.Value) != value || *out.Checksum != in.Checksum || !out.ExpiresAt.Equal(in.ExpiresAt) ||
			out.Tags["a"] != "b" || out.Metadata["c"] != "d" || j.Revision != in.Revision {
			t.Errorf("%q came back as %+v", value, out)
		}
	}
}

func TestBadLines(t *testing.T) {
	for _, line := range []string{
		`{"key":"a"}`, `{"value":"a"}`, `{"key":"a","value":"x","value_base64":"eA=="}`, `{"key":"a","value_base64":"?"}`,
		`{"key":"a","value":"x","if_vershion":1}`, `{"key":"a","value":"x"} {}`, `{"key":"a","value":"x","checksum":1}`,
		`{"key":"a","value":"x","ttl_seconds":1,"expires_at":"2030-01-01T00:00:00Z"}`, `[]`, `{`,
	} {
		j, err := Parse([]byte(line))
		if err == nil {
			_, err = j.Put()
		}
		if !errors.Is(err, ErrBad) {
			t.Errorf("%s: want ErrBad, have %v", line, err)
		}
	}
}

func TestConditions(t *testing.T) {
	j, err := Parse([]byte(`{"key":"a","if_version":0,"if_revision":"1152921504606846977","if_exists":true,"if_value":"v"}`))
	if err != nil {
		t.Fatal(err)
	}
	c, err := j.Condition()
	if err != nil || c.Version == nil || *c.Version != 0 || *c.Revision != 1<<60+1 || !c.MustExist || string(c.ValueEquals) != "v" || !c.HasValueEquals {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestKeys(t *testing.T) {
	for line, want := range map[string]string{`a b`: "a b", `"a\nb"`: "a\nb", `{"key":"c"}`: "c"} {
		j, err := ParseKey([]byte(line))
		if err != nil || j.Key != want {
			t.Errorf("%s: %q, %v", line, j.Key, err)
		}
	}
}

func TestLines(t *testing.T) {
	l := NewLines(strings.NewReader("a\n\n  b  \r\n" + strings.Repeat("c", 200_000)))
	for _, want := range []struct {
		text string
		n    int64
	}{{"a", 1}, {"b", 3}, {strings.Repeat("c", 200_000), 4}} {
		got, err := l.Next()
		if err != nil || string(got) != want.text || l.Number() != want.n {
			t.Fatalf("line %d: %.20q, %v", l.Number(), got, err)
		}
	}
	if _, err := l.Next(); !errors.Is(err, io.EOF) {
		t.Fatalf("want io.EOF, have %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"key":"a","value":"x","if_version":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		j, err := Parse(b)
		if err != nil {
			return
		}
		if item, err := j.Put(); err == nil && item.Key == "" {
			t.Fatalf("%q gave an empty key", b)
		}
	})
}
