package jsondoc

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"kvstore/internal/fault"
)

type inner struct {
	Match *uint64 `json:"match"`
	own   int     //nolint:unused // no member
}

type odd uint64

func (o *odd) UnmarshalJSON(b []byte) error {
	if string(b) != "1" {
		return fault.New(fault.InvalidArgument, "it is not 1")
	}
	*o = 1
	return nil
}

type item struct {
	Key  string            `json:"key"`
	Text *string           `json:"text"`
	On   bool              `json:"on"`
	TTL  int64             `json:"ttl"`
	Odd  *odd              `json:"odd"`
	Tags map[string]string `json:"tags"`
	At   time.Time         `json:"at"`
	Big  uint64            `json:"big,omitempty,string"`
	inner
	Inner *inner `json:"inner"`
}

type form struct {
	Name  string `json:"name"`
	Items []item `json:"items"`
}

// Errors have the place and the words of the document, and no names of Go.
func TestErrorsSayWhere(t *testing.T) {
	for doc, want := range map[string]string{
		"{\n\"items\":[{},{\n\"text\": 5}]}":                "items[1].text must be a string; quote it (line 3)",
		`{"items":[{"key":true}]}`:                          "items[0].key must be a string; quote it (line 1)",
		`{"items":[{"key":["a"]}]}`:                         "items[0].key must be a string (line 1)",
		`{"items":[{"on":"true"}]}`:                         "items[0].on must be true or false (line 1)",
		`{"items":[{"ttl":1.5}]}`:                           "items[0].ttl must be a whole number from -9223372036854775808 to 9223372036854775807, without quotes (line 1)",
		`{"items":[{"inner":{"match":-1}}]}`:                "items[0].inner.match must be a whole number from 0 to 18446744073709551615, without quotes (line 1)",
		`{"items":[{"odd":1},{"odd":2}]}`:                   "items[1].odd cannot be used: it is not 1 (line 1)",
		`{"items":[{"tags":{"a":"b","c d":1}}]}`:            "items[0].tags.c d must be a string; quote it (line 1)",
		`{"items":[{"tags":[]}]}`:                           "items[0].tags must be an object, with members that have names (line 1)",
		`{"items":{}}`:                                      "items must be a list (line 1)",
		`{"items":[{"at":"soon"}]}`:                         "items[0].at must be a time as in 2027-01-31T12:00:00Z (line 1)",
		`{"items":[{"big":5}]}`:                             "items[0].big must be a whole number, in quotes (line 1)",
		`{"items":[{"big":"5","key":5}]}`:                   "items[0].key must be a string; quote it (line 1)",
		`[]`:                                                "the document must be an object, with members that have names (line 1)",
		"{\"items\":[\n{\"keys\":\"a\"}]}":                  "items[0].keys is not known; there are key, text, on, ttl, odd, tags, at, big, match, inner (line 2)",
		"{\"name\":\n}":                                     "the document is not JSON: invalid character '}' looking for beginning of value (line 2)",
		`{"name":"a"`:                                       "the document is not JSON: it ends too early (line 1)",
		"{\"name\":\"a\"}\n{}":                              "the document has more behind its end (line 2)",
		"":                                                  "the document is empty; JSON is expected (line 1)",
		"{\n\"name\":\"\xff\"}":                             "the document is not valid UTF-8 (line 2)",
		"{\n\"name\":\"\\ud800\"}":                          "the document holds half a surrogate pair (line 2)",
		`{"items":[{"` + "\x7f" + `":1}]}`:                  `items[0]."\x7f" is not known; there are key, text, on, ttl, odd, tags, at, big, match, inner (line 1)`,
		`{"items":[{"` + strings.Repeat("x", 99) + `":1}]}`: "items[0]." + strings.Repeat("x", 64) + "... is not known; there are key, text, on, ttl, odd, tags, at, big, match, inner (line 1)",
	} {
		err := Decode([]byte(doc), new(form))
		if err == nil || err.Error() != want {
			t.Errorf("%s: %v\nwant %s", doc, err, want)
		}
	}
	if err := Decode([]byte(`{"NAME":"a","items":[{"match":1,"inner":null,"odd":1,"text":null}]}`), new(form)); err != nil {
		t.Error(err)
	}
}

// Whatever encoding/json refuses has an error that names its place.
func FuzzDecode(f *testing.F) {
	f.Add(`{"name":"a","items":[{"key":"k","tags":{"a":"b"},"inner":{"match":1}}]}`)
	f.Add(`{"items":[{"odd":[1,{}]}]}`)
	f.Fuzz(func(t *testing.T, doc string) {
		err := Decode([]byte(doc), new(form))
		if err == nil && !json.Valid([]byte(doc)) {
			t.Fatalf("%q is taken", doc)
		}
		if err != nil && (strings.Contains(err.Error(), "Go ") || strings.Contains(err.Error(), "jsondoc.")) {
			t.Fatalf("%q: %v", doc, err)
		}
	})
}

func TestLoneSurrogates(t *testing.T) {
	for text, lone := range map[string]bool{
		`"\ud83d\ude00"`: false, `"\ud83d"`: true, `"\ude00"`: true, `"\ude00\ud83d"`: true, `"\\ud83d"`: false,
		`"\\\ud83d"`: true, `"\u00e9"`: false, `"\ud83dx"`: true, `"\ud83d\n"`: true, `"\`: false, `"\u12`: false,
	} {
		if got := loneSurrogate([]byte(text)) >= 0; got != lone {
			t.Errorf("%s: %v, want %v", text, got, lone)
		}
	}
}
