package lockcheck

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	a, b := Hold{Owner: "a", Token: 1, From: 10, Until: 20}, Hold{Owner: "b", Token: 2, From: 20, Until: 30}
	lost := Hold{Owner: "a", Token: 1, From: 10, Until: 40, Lost: true}
	for name, c := range map[string]struct {
		holds  []Hold
		writes []Write
		want   string
	}{
		"nothing":      {},
		"in turn":      {[]Hold{b, a}, []Write{{2, 60}, {1, 50}, {2, 70}, {1, 40}}, ""},
		"lost":         {[]Hold{lost, b}, []Write{{1, 50}, {2, 60}}, ""},
		"old token":    {[]Hold{lost, b}, []Write{{2, 60}, {1, 70}}, "took token 1 at revision 70, after 2"},
		"overlap":      {[]Hold{a, {Owner: "b", Token: 2, From: 19, Until: 30}}, nil, "b took the lock with token 2 at 19, while a held it"},
		"wrong order":  {[]Hold{{Owner: "a", Token: 2, From: 10, Until: 20}, {Owner: "b", Token: 1, From: 20, Until: 30}}, nil, "a took the lock"},
		"lost, early":  {[]Hold{{Owner: "a", Token: 1, From: 25, Until: 40, Lost: true}, b}, nil, "b took the lock with token 2 at 20"},
		"two owners":   {[]Hold{a, {Owner: "b", Token: 1, From: 30, Until: 40}}, nil, "belongs to a and to b"},
		"no token":     {[]Hold{{Owner: "a"}}, nil, "without a token"},
		"foreign":      {[]Hold{a}, []Write{{9, 50}}, "nobody was given"},
		"longer first": {[]Hold{{Owner: "a", Token: 1, From: 1, Until: 50}, {Owner: "b", Token: 2, From: 60, Until: 61}, {Owner: "c", Token: 3, From: 61, Until: 70}}, nil, ""},
	} {
		err := Check(c.holds, c.writes)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
