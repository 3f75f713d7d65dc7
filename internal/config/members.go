package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"
)

// membersValue is cluster_membership.current_config: a list of
// {node_id, address, role} in YAML, or node-1=host:port,node-2=host:port.
type membersValue struct{ p *[]Member }

const membersAllowed = "a list of {node_id, address, role: voter}; optional: zone"

func (v membersValue) allowed() string { return membersAllowed }

func (v membersValue) String() string {
	parts := make([]string, 0, len(*v.p))
	for _, m := range *v.p {
		parts = append(parts, m.NodeID+"="+m.Address)
	}
	return strings.Join(parts, ",")
}

func (v membersValue) set(raw any) error {
	var (
		out []Member
		err error
	)
	switch x := raw.(type) {
	case nil:
	case string:
		out, err = parseMembers(x)
	case []any:
		out, err = decodeMembers(x)
	default:
		err = errors.New("needs a list")
	}
	if err == nil {
		err = checkMembers(out)
	}
	if err == nil {
		*v.p = out
	}
	return err
}

func parseMembers(s string) ([]Member, error) {
	var out []Member
	for _, part := range strings.Split(s, ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		name, addr, ok := strings.Cut(part, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not name=host:port", part)
		}
		out = append(out, Member{NodeID: name, Address: addr, Role: "voter"})
	}
	return out, nil
}

func decodeMembers(list []any) ([]Member, error) {
	var (
		out  []Member
		errs []error
	)
	for i, item := range list {
		fields, ok := item.(map[string]any)
		if !ok {
			errs = append(errs, fmt.Errorf("item %d is not a map", i+1))
			continue
		}
		m := Member{Role: "voter"}
		into := map[string]*string{"node_id": &m.NodeID, "address": &m.Address, "role": &m.Role, "zone": &m.Zone}
		for _, name := range sortedKeys(fields) {
			p, known := into[name]
			if !known {
				errs = append(errs, fmt.Errorf("item %d has the unknown key %q", i+1, name))
				continue
			}
			s, err := scalar(fields[name])
			if err != nil {
				errs = append(errs, fmt.Errorf("item %d: %s %w", i+1, name, err))
				continue
			}
			*p = s
		}
		out = append(out, m)
	}
	return out, errors.Join(errs...)
}

// checkMembers reports every member that cannot be one.
func checkMembers(members []Member) error {
	var errs []error
	names, addresses := map[string]bool{}, map[string]bool{}
	for i, m := range members {
		if err := checkName(m.NodeID); err != nil {
			errs = append(errs, fmt.Errorf("item %d: node_id %q %w", i+1, m.NodeID, err))
		}
		if err := checkAddress(m.Address); err != nil {
			errs = append(errs, fmt.Errorf("item %d: address %q %w", i+1, m.Address, err))
		}
		if m.Role != "voter" {
			errs = append(errs, fmt.Errorf("item %d: role %q is not voter: first members are voters", i+1, m.Role))
		}
		if names[m.NodeID] {
			errs = append(errs, fmt.Errorf("item %d: node_id %q is there twice", i+1, m.NodeID))
		}
		if addresses[m.Address] {
			errs = append(errs, fmt.Errorf("item %d: address %q is there twice", i+1, m.Address))
		}
		names[m.NodeID], addresses[m.Address] = true, true
	}
	return errors.Join(errs...)
}

// pendingValue is cluster_membership.pending_config, which S3.12 shows for a
// running cluster. A configuration file describes the first members only.
type pendingValue struct{}

func (pendingValue) String() string  { return "" }
func (pendingValue) allowed() string { return "nothing (leave it empty)" }
func (pendingValue) set(raw any) error {
	switch x := raw.(type) {
	case nil:
		return nil
	case map[string]any:
		if len(x) == 0 {
			return nil
		}
	case string:
		if strings.TrimSpace(x) == "" {
			return nil
		}
	}
	return errors.New("describes a change that a running cluster is making; the file names its first members only. " +
		"A new node joins by itself: give it a node.name that current_config does not list and start it")
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
