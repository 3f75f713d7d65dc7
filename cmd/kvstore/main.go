// Command kvstore runs a node (`kvstore server`) or a whole development
// cluster (`kvstore dev`).
package main

import (
	"os"

	"google.golang.org/grpc/experimental"

	"kvstore/internal/command"
	"kvstore/internal/wirebuf"
)

// gRPC's codec takes its buffers from one place in the process, which can be
// set only before gRPC is used.
func init() { experimental.SetDefaultBufferPool(wirebuf.Pool) }

func main() { os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr)) }
