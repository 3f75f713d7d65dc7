package client

import "testing"

// StartFakeCluster serves the fake for tests outside of the package.
func StartFakeCluster(t *testing.T) (endpoints []string) { return newFakeCluster(t, 3).endpoints() }
