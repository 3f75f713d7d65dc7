package membership

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Action is what a node does next.
type Action int

const (
	// Wait: probe again; Reason says what for.
	Wait Action = iota
	// Found: create the first replicas of the cluster Members describes.
	Found
	// Join: ask a member to be admitted.
	Join
)

func (a Action) String() string {
	switch a {
	case Wait:
		return "wait"
	case Found:
		return "found"
	case Join:
		return "join"
	}
	return fmt.Sprintf("Action(%d)", int(a))
}

// Self is what an empty node knows.
type Self struct {
	// Name of the node, Life of its data directory, name of the Cluster.
	Name, Life, Cluster string
	// First are the names of the first members in the configuration.
	First []string
	// ConfigHash must be the same on all first members (see ConfigHash).
	ConfigHash string
	// Sees is what this node saw last; nil at the start.
	Sees map[string]string
}

// Answer is what the probe of one first member gave.
type Answer struct {
	// Err says why there is no answer; the other fields are empty then.
	Err string
	// Name and Life of the node that answered.
	Name, Life string
	ConfigHash string
	Empty      bool
	// Seen, of an empty node: name -> life of all first members, or nothing.
	Seen map[string]string
	// ClusterID and Founded, of one that is not empty. Founded is name -> life
	// of the members its cluster was founded with, when it knows.
	ClusterID string
	Founded   map[string]string
	// Epoch is the last recovery of that cluster.
	Epoch uint64
}

// Decision is the outcome of one round of probes.
type Decision struct {
	Action Action
	// Members, when founding: name -> life, this node's among them.
	Members map[string]string
	// ClusterID of the cluster to found or join.
	ClusterID string
	// Through are the names of members that can admit this node, sorted.
	Through []string
	// Reason for operators: what is waited for, or why this was decided.
	Reason string
	// Sees is what this node must say from now on, and pass as Self.Sees.
	Sees map[string]string
}

// Decide judges the answers of one round; answers is by the name that was
// probed and lacks this node. It is a pure function.
func Decide(self Self, answers map[string]Answer) Decision {
	d := Decision{Sees: self.Sees}
	first := slices.Clone(self.First)
	slices.Sort(first)
	if faults := implausible(self, first, answers); len(faults) > 0 {
		return d.wait(strings.Join(faults, "; "))
	}
	if members := notEmpty(first, answers); len(members) > 0 {
		return d.existing(self, answers, members)
	}
	if !slices.Contains(first, self.Name) {
		return d.wait("this node is not a first member, and no first member has a cluster yet" + silent(first, self.Name, answers))
	}
	if s := silent(first, self.Name, answers); s != "" {
		return d.wait("waiting for first members to answer" + s)
	}
	return d.found(self, first, answers)
}

func (d Decision) wait(reason string) Decision {
	d.Action, d.Reason = Wait, reason
	return d
}

// implausible lists answers that contradict the configuration. They stop any
// decision, because they mean that nodes were configured differently.
func implausible(self Self, first []string, answers map[string]Answer) []string {
	var faults []string
	lives := map[string]string{self.Life: self.Name}
	clusters := map[string]string{}
	for _, name := range first {
		a, ok := answers[name]
		if !ok || a.Err != "" || name == self.Name {
			continue
		}
		if a.Name != name {
			faults = append(faults, fmt.Sprintf("the address of %s is answered by %s", name, a.Name))
			continue
		}
		if other, ok := lives[a.Life]; ok {
			faults = append(faults, fmt.Sprintf("%s and %s are the same node, or share a copied data directory", other, name))
		}
		lives[a.Life] = name
		if a.Empty && a.ConfigHash != self.ConfigHash && slices.Contains(first, self.Name) {
			faults = append(faults, name+" was configured with other first members, groups or replication factor")
		}
		if !a.Empty {
			clusters[a.ClusterID] = name
		}
	}
	if len(clusters) > 1 {
		faults = append(faults, "first members belong to different clusters: "+list(clusters))
	}
	return faults
}

// notEmpty returns the names of members with a cluster, sorted.
func notEmpty(first []string, answers map[string]Answer) []string {
	var members []string
	for _, name := range first {
		if a, ok := answers[name]; ok && a.Err == "" && !a.Empty {
			members = append(members, name)
		}
	}
	return members
}

// silent describes the members without an answer: "" or ": b (reason), c".
func silent(first []string, self string, answers map[string]Answer) string {
	var missing []string
	for _, name := range first {
		a, ok := answers[name]
		switch {
		case name == self:
		case !ok:
			missing = append(missing, name)
		case a.Err != "":
			missing = append(missing, name+" ("+a.Err+")")
		}
	}
	if len(missing) == 0 {
		return ""
	}
	return ": " + strings.Join(missing, ", ")
}

// existing decides when there is a cluster.
func (d Decision) existing(self Self, answers map[string]Answer, members []string) Decision {
	epoch, members := newest(answers, members)
	d.Through = members
	d.ClusterID = answers[members[0]].ClusterID
	for _, name := range members {
		if epoch > 0 {
			break // the replicas it would found are of before the recovery
		}
		founded := answers[name].Founded
		if founded[self.Name] != self.Life {
			continue
		}
		if id := ClusterID(self.Cluster, founded); id != d.ClusterID {
			return d.wait(fmt.Sprintf("%s names members that do not make its cluster id (%s instead of %s)", name, id, d.ClusterID))
		}
		d.Action, d.Members, d.Sees = Found, founded, founded
		d.Reason = name + " has already founded the cluster with this node"
		return d
	}
	d.Action = Join
	d.Reason = "the cluster exists and was not founded with this data directory (" + strings.Join(members, ", ") + " answered)"
	return d
}

// newest leaves out members of before the last recovery of the cluster.
func newest(answers map[string]Answer, members []string) (epoch uint64, left []string) {
	for _, name := range members {
		epoch = max(epoch, answers[name].Epoch)
	}
	for _, name := range members {
		if answers[name].Epoch == epoch {
			left = append(left, name)
		}
	}
	return epoch, left
}

// found decides when every first member is empty.
func (d Decision) found(self Self, first []string, answers map[string]Answer) Decision {
	lives := map[string]string{self.Name: self.Life}
	for _, name := range first {
		if name != self.Name {
			lives[name] = answers[name].Life
		}
	}
	d.Sees = lives
	for _, name := range first {
		if name != self.Name && !maps.Equal(answers[name].Seen, lives) {
			return d.wait("all first members are empty; waiting until " + name + " sees the same")
		}
	}
	d.Action, d.Members = Found, lives
	d.ClusterID = ClusterID(self.Cluster, lives)
	d.Reason = "all first members are empty and see the same"
	return d
}

func list(m map[string]string) string {
	var parts []string
	for id, name := range m {
		parts = append(parts, name+" in "+id)
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
