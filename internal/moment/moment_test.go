package moment

import (
	"strings"
	"testing"

	"kvstore/internal/fault"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Moment{
		"119537664000000001":           {Revision: 119537664000000001},
		"1000000000000000":             {Revision: 1000000000000000},
		"999999999999999":              {TimeMs: 999999999999999},
		"1824000000000":                {TimeMs: 1824000000000},
		"2027-01-31T12:00:00Z":         {TimeMs: 1801396800000},
		"2027-01-31T13:00:00.25+01:00": {TimeMs: 1801396800250},
		"-5m":                          {TimeMs: -300000},
		"-1h30m":                       {TimeMs: -5400000},
		"-250ms":                       {TimeMs: -250},
		"18446744073709551615":         {Revision: 1<<64 - 1},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "1824000000", "99999999999", "5m", "-", "--5m", "-5", "-5us", "yesterday", "2027-01-31", "1e9", "18446744073709551616", "1969-01-01T00:00:00Z", "-+5m", strings.Repeat("x", 1000)} {
		got, err := Parse(text)
		if fault.CodeOf(err) != fault.InvalidArgument || got != (Moment{}) || len(err.Error()) > 300 {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
}
