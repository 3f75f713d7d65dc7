package samples

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/pprof/profile"

	"kvstore/test/peers/cluster"
)

// Fetch profiles all nodes at once for d, whole seconds, and merges what they
// say. The nodes run with pprof.
func Fetch(ctx context.Context, c *cluster.Cluster, d time.Duration) (*profile.Profile, error) {
	profiles := make([]*profile.Profile, len(c.Nodes))
	errs := make([]error, len(c.Nodes))
	var all sync.WaitGroup
	for i, n := range c.Nodes {
		all.Go(func() { profiles[i], errs[i] = fetch(ctx, n.Metrics, d) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return profile.Merge(profiles)
}

func fetch(ctx context.Context, address string, d time.Duration) (p *profile.Profile, err error) {
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", address, int(d.Seconds()))
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, res.Status)
	}
	return profile.Parse(res.Body)
}

// Parts divides the CPU of a profile.
func Parts(p *profile.Profile) map[Component]time.Duration {
	parts := map[Component]time.Duration{}
	value := len(p.SampleType) - 1 // samples/count, cpu/nanoseconds
	for _, sample := range p.Sample {
		parts[Classify(stack(sample))] += time.Duration(sample.Value[value])
	}
	return parts
}

// stack is the functions of a sample, innermost first, inlined ones included.
func stack(s *profile.Sample) (names []string) {
	for _, l := range s.Location {
		for _, line := range l.Line {
			if line.Function != nil {
				names = append(names, line.Function.Name)
			}
		}
	}
	return names
}

// Save writes a profile for `go tool pprof`, into a directory that it makes.
func Save(p *profile.Profile, name string) (err error) {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return p.Write(f)
}
