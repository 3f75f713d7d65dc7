package ctl

import (
	"bufio"
	"fmt"
	"os"

	"github.com/google/pprof/profile"

	"kvstore/client"
)

// mergeProfiles writes one profile of all nodes' samples, labeled with their
// nodes.
func mergeProfiles(path string, nodes []nodeProfileView) error {
	var all []*profile.Profile
	for _, n := range nodes {
		if n.File == "" {
			continue
		}
		p, err := readProfile(n.File)
		if err != nil {
			return err
		}
		p.SetLabel("node", []string{n.Node})
		all = append(all, p)
	}
	merged, err := profile.Merge(all)
	if err != nil {
		return fmt.Errorf("merge the nodes' profiles: %w", err)
	}
	_, err = writeProfile(path, func(w *bufio.Writer) (client.ProfileInfo, error) {
		return client.ProfileInfo{}, merged.Write(w)
	})
	return err
}

func readProfile(path string) (*profile.Profile, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("profile of a node: %w", err)
	}
	p, err := profile.Parse(file)
	_ = file.Close() // it was only read
	if err != nil {
		return nil, fmt.Errorf("profile in %s: %w", path, err)
	}
	return p, nil
}
