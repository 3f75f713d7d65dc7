package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"kvstore/internal/ctl/ctxfile"
)

// Preload runs kvbench only to write keys; ctx bounds it. exe is kvbench, args
// say which keys.
func (l *Launcher) Preload(ctx context.Context, c *Cluster, exe string, args []string) error {
	args = append([]string{"--driver", c.Name, "--endpoints", c.Endpoints(), "--preload-only"}, args...)
	cmd := exec.Command(exe, args...)
	cmd.Env = Environ(ctxfile.EnvFile + "=" + filepath.Join(filepath.Dir(exe), "no-contexts.yaml"))
	var progress bytes.Buffer
	cmd.Stderr = &progress
	if err := l.Start(cmd); err != nil {
		return err
	}
	stopped := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stopped()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("kvbench %s: %w\n%s", strings.Join(args, " "), errors.Join(err, ctx.Err()), progress.Bytes())
	}
	return nil
}
