package rest

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/fault"
	"kvstore/internal/moment"
)

// params are the query parameters of a request. Unknown and repeated ones are
// errors: a condition with a typo must not be ignored.
type params url.Values

// repeated names the parameters that may be given several times.
var repeated = map[string]bool{"tag": true}

func parseQuery(raw string, allowed []string) (params, error) {
	values, err := url.ParseQuery(raw)
	if err != nil {
		return nil, fault.Wrap(fault.InvalidArgument, err, "the query is not well encoded")
	}
	for name, vs := range values {
		if !slices.Contains(allowed, name) {
			return nil, fault.New(fault.InvalidArgument, "unknown query parameter",
				"parameter", clip(name), "allowed", strings.Join(allowed, ", "))
		}
		if len(vs) > 1 && !repeated[name] {
			return nil, badParam(name, "is given more than once", strconv.Itoa(len(vs)))
		}
		for _, v := range vs {
			if !utf8.ValidString(v) {
				return nil, badParam(name, "is not valid UTF-8", v)
			}
		}
	}
	return params(values), nil
}

func badParam(name, problem, actual string) error {
	return fault.New(fault.InvalidArgument, "query parameter "+name+" "+problem, "parameter", name, "actual", clip(actual))
}

func (p params) text(name string) string { return url.Values(p).Get(name) }

func (p params) has(name string) bool { return url.Values(p).Has(name) }

// flag reads a boolean; given without a value it is true.
func (p params) flag(name string) (bool, error) {
	if !p.has(name) {
		return false, nil
	}
	text := p.text(name)
	if text == "" {
		return true, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, badParam(name, "must be true or false", text)
	}
	return b, nil
}

// number reads an unsigned number of at most bits bits; nil when it is absent.
func (p params) number(name string, bits int) (*uint64, error) {
	if !p.has(name) {
		return nil, nil
	}
	n, err := strconv.ParseUint(p.text(name), 10, bits)
	if err != nil {
		return nil, badParam(name, "must be a whole number, 0 or more", p.text(name))
	}
	return &n, nil
}

// base64 reads either base64 alphabet, padded or not; nil when it is absent.
func (p params) base64(name string) ([]byte, error) {
	if !p.has(name) {
		return nil, nil
	}
	b, err := decodeBase64(p.text(name))
	if err != nil {
		return nil, badParam(name, "is not base64", p.text(name))
	}
	return b, nil
}

func decodeBase64(text string) ([]byte, error) {
	text = strings.TrimRight(text, "=")
	text = strings.NewReplacer("-", "+", "_", "/").Replace(text)
	b, err := base64.RawStdEncoding.Strict().DecodeString(text)
	if b == nil {
		b = []byte{}
	}
	return b, err
}

// consistency reads the level of a read.
func (p params) consistency() (api.Consistency, int64, error) {
	stale, err := p.number("max_staleness_ms", 62)
	if err != nil {
		return 0, 0, err
	}
	switch level := p.text("consistency"); level {
	case "", "linearizable":
		if stale != nil {
			return 0, 0, badParam("max_staleness_ms", "needs consistency=bounded_staleness", p.text("max_staleness_ms"))
		}
		return api.Consistency_CONSISTENCY_LINEARIZABLE, 0, nil
	case "bounded_staleness":
		if stale == nil || *stale == 0 {
			return 0, 0, badParam("max_staleness_ms", "must be positive with consistency=bounded_staleness", p.text("max_staleness_ms"))
		}
		return api.Consistency_CONSISTENCY_BOUNDED_STALENESS, int64(*stale), nil
	default:
		return 0, 0, badParam("consistency", "must be linearizable or bounded_staleness", level)
	}
}

// moment reads which moment of the past is asked for.
func (p params) moment() (moment.Moment, error) {
	if !p.has("at") {
		return moment.Moment{}, nil
	}
	return moment.Parse(p.text("at"))
}

// listConsistency reads the level of a list, which has one more.
func (p params) listConsistency() (api.Consistency, int64, error) {
	switch level := p.text("consistency"); level {
	case "snapshot":
		if stale := p.text("max_staleness_ms"); stale != "" {
			return 0, 0, badParam("max_staleness_ms", "needs consistency=bounded_staleness", stale)
		}
		return api.Consistency_CONSISTENCY_SNAPSHOT, 0, nil
	case "", "linearizable", "bounded_staleness":
		return p.consistency()
	default:
		return 0, 0, badParam("consistency", "must be linearizable, snapshot or bounded_staleness", level)
	}
}

func consistencyName(c api.Consistency) string {
	switch c {
	case api.Consistency_CONSISTENCY_BOUNDED_STALENESS:
		return "bounded_staleness"
	case api.Consistency_CONSISTENCY_SNAPSHOT:
		return "snapshot"
	case api.Consistency_CONSISTENCY_LINEARIZABLE:
	}
	return "linearizable"
}

// condition reads the conditions given by query; nil when there are none.
func (p params) condition() (*api.Condition, error) {
	c := &api.Condition{}
	var err error
	if c.VersionMatch, err = p.number("version_match", 64); err != nil {
		return nil, err
	}
	if c.RevisionMatch, err = p.number("revision_match", 64); err != nil {
		return nil, err
	}
	if c.CreatedMatch, err = p.number("created_match", 64); err != nil {
		return nil, err
	}
	if p.has("lease_match") {
		lease := p.text("lease_match")
		c.LeaseMatch = &lease
	}
	if c.MustExist, err = p.flag("must_exist"); err != nil {
		return nil, err
	}
	if c.MustNotExist, err = p.flag("must_not_exist"); err != nil {
		return nil, err
	}
	if c.ValueEquals, err = p.base64("value_equals_base64"); err != nil {
		return nil, err
	}
	if p.has("value_equals") {
		if c.ValueEquals != nil {
			return nil, badParam("value_equals", "excludes value_equals_base64", p.text("value_equals"))
		}
		c.ValueEquals = []byte(p.text("value_equals"))
	}
	if c.VersionMatch == nil && c.RevisionMatch == nil && !c.MustExist && !c.MustNotExist && c.ValueEquals == nil &&
		c.CreatedMatch == nil && c.LeaseMatch == nil {
		return nil, nil
	}
	return c, nil
}

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// formatTime writes Unix milliseconds as RFC 3339; "" for 0.
func formatTime(ms int64) string {
	if ms == 0 {
		return ""
	}
	return time.UnixMilli(ms).UTC().Format(timeLayout)
}

// parseTime reads RFC 3339 as Unix milliseconds, rounded down.
func parseTime(text string) (int64, bool) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || t.UnixMilli() <= 0 {
		return 0, false
	}
	return t.UnixMilli(), true
}
