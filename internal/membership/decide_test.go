package membership

import (
	"strings"
	"testing"
)

const testCluster = "test"

func self(name, life string) Self {
	return Self{Name: name, Life: life, Cluster: testCluster, First: []string{"c", "a", "b"}, ConfigHash: "h"}
}

func empty(name, life string, seen map[string]string) Answer {
	return Answer{Name: name, Life: life, Empty: true, ConfigHash: "h", Seen: seen}
}

func member(name, life string, founded map[string]string) Answer {
	return Answer{Name: name, Life: life, ClusterID: ClusterID(testCluster, list1), Founded: founded}
}

func recovered(a Answer) Answer {
	a.Epoch = 2
	return a
}

func down() Answer { return Answer{Err: "Unavailable: refused"} }

var list1 = map[string]string{"a": "a1", "b": "b1", "c": "c1"}

// TestDecide covers the outcomes of one round (DESIGN 5: a node founds only
// after every first member answered that it is empty too; a wiped directory
// never acts under its old life).
func TestDecide(t *testing.T) {
	list2 := map[string]string{"a": "a1", "b": "b2", "c": "c1"}
	cases := []struct {
		name    string
		self    Self
		answers map[string]Answer
		want    Action
		reason  string // part of it
	}{
		{"nobody answers", self("a", "a1"), map[string]Answer{"b": down(), "c": down()}, Wait, "b (Unavailable: refused), c"},
		{"one is silent", self("a", "a1"), map[string]Answer{"b": empty("b", "b1", list1), "c": down()}, Wait, "waiting for first members to answer: c"},
		{"one was not asked", self("a", "a1"), map[string]Answer{"b": empty("b", "b1", list1)}, Wait, ": c"},
		{"all empty, nothing said yet", self("a", "a1"), map[string]Answer{"b": empty("b", "b1", nil), "c": empty("c", "c1", nil)}, Wait, "until b sees the same"},
		{"all empty, one has not said", self("a", "a1"), map[string]Answer{"b": empty("b", "b1", list1), "c": empty("c", "c1", nil)}, Wait, "until c sees the same"},
		{"all empty, one saw an older life", self("a", "a1"), map[string]Answer{"b": empty("b", "b2", list2), "c": empty("c", "c1", list1)}, Wait, "until c sees the same"},
		{"all empty and agreed", self("a", "a1"), map[string]Answer{"b": empty("b", "b1", list1), "c": empty("c", "c1", list1)}, Found, "see the same"},
		{"slow, one member founded with it", self("c", "c1"), map[string]Answer{"a": member("a", "a1", list1), "b": down()}, Found, "already founded"},
		{"slow, one founded, one empty", self("c", "c1"), map[string]Answer{"a": empty("a", "a1", list1), "b": member("b", "b1", list1)}, Found, "already founded"},
		{"slow, a joined member answers first in order", self("c", "c1"), map[string]Answer{"a": member("a", "a2", nil), "b": member("b", "b1", list1)}, Found, "already founded"},
		{"wiped, all others run", self("b", "b2"), map[string]Answer{"a": member("a", "a1", list1), "c": member("c", "c1", list1)}, Join, "not founded with this data directory"},
		{"wiped, one runs, one is silent", self("b", "b2"), map[string]Answer{"a": member("a", "a1", list1), "c": down()}, Join, ""},
		{"wiped, one runs, one is empty and slow", self("b", "b2"), map[string]Answer{"a": member("a", "a1", list1), "c": empty("c", "c1", list1)}, Join, ""},
		{"wiped, others silent", self("b", "b2"), map[string]Answer{"a": down(), "c": down()}, Wait, "waiting"},
		{"wiped, only a joined member answers", self("b", "b2"), map[string]Answer{"a": member("a", "a2", nil), "c": down()}, Join, ""},
		{"newcomer", self("d", "d1"), map[string]Answer{"a": member("a", "a1", list1)}, Join, ""},
		{"newcomer before the cluster", self("d", "d1"), map[string]Answer{"a": empty("a", "a1", nil), "b": down(), "c": down()}, Wait, "not a first member"},
		{"recovered without this life", self("c", "c1"), map[string]Answer{"a": recovered(member("a", "a1", list1)), "b": member("b", "b1", list1)}, Join, "(a answered)"},
		{"wrong address", self("a", "a1"), map[string]Answer{"b": empty("c", "c1", list1), "c": empty("c", "c1", list1)}, Wait, "address of b is answered by c"},
		{"copied directory", self("a", "a1"), map[string]Answer{"b": empty("b", "a1", nil), "c": empty("c", "c1", nil)}, Wait, "a and b are the same node"},
		{"other configuration", self("a", "a1"), map[string]Answer{"b": {Name: "b", Life: "b1", Empty: true, ConfigHash: "x", Seen: list1}, "c": empty("c", "c1", list1)}, Wait, "b was configured with other"},
		{"two clusters", self("a", "a1"), map[string]Answer{"b": member("b", "b1", list1), "c": {Name: "c", Life: "c1", ClusterID: "other"}}, Wait, "different clusters"},
		{"list does not make the id", self("c", "c1"), map[string]Answer{"a": {Name: "a", Life: "a1", ClusterID: "other", Founded: list1}}, Wait, "do not make its cluster id"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(c.self, c.answers)
			if d.Action != c.want || !strings.Contains(d.Reason, c.reason) {
				t.Fatalf("decided %v because %q; want %v because %q", d.Action, d.Reason, c.want, c.reason)
			}
			if d.Action == Found && (d.Members[c.self.Name] != c.self.Life || d.ClusterID != ClusterID(testCluster, d.Members)) {
				t.Fatalf("founds %v as %s under life %s", d.Members, d.ClusterID, c.self.Life)
			}
			if d.Action == Join && (d.ClusterID == "" || len(d.Through) == 0) {
				t.Fatalf("joins %q through %v", d.ClusterID, d.Through)
			}
		})
	}
}

func TestDecideAlone(t *testing.T) {
	d := Decide(Self{Name: "a", Life: "a1", Cluster: testCluster, First: []string{"a"}}, nil)
	if d.Action != Found || len(d.Members) != 1 {
		t.Fatalf("a single first member decided %+v", d)
	}
}

func TestIdentities(t *testing.T) {
	id := ClusterID("x", map[string]string{"a": "1", "b": "2"})
	if len(id) != 36 || id[14] != '8' {
		t.Fatalf("cluster id %q is not a UUID of version 8", id)
	}
	for _, other := range []string{
		ClusterID("y", map[string]string{"a": "1", "b": "2"}),
		ClusterID("x", map[string]string{"a": "1", "b": "3"}),
		ClusterID("x", map[string]string{"a": "1b", "": "2"}),
		ClusterID("x", map[string]string{"a": "1"}),
	} {
		if other == id {
			t.Fatal("different clusters have one id")
		}
	}
	if a, b := NewLife(), NewLife(); a == b || len(a) != 36 || a[14] != '4' {
		t.Fatalf("lives %q, %q", a, b)
	}
	if ConfigHash("x", []string{"a", "b"}, 8, 3) != ConfigHash("x", []string{"b", "a"}, 8, 3) {
		t.Fatal("the order of names changes the hash")
	}
	if ConfigHash("x", []string{"a", "b"}, 8, 3) == ConfigHash("x", []string{"a", "b"}, 8, 5) {
		t.Fatal("the replication factor does not change the hash")
	}
}
