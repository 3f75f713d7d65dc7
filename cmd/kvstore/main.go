// Command kvstore runs a node (`kvstore server`) or a whole development
// cluster (`kvstore dev`).
package main

import (
	"os"

	"kvstore/internal/command"
)

func main() { os.Exit(command.Main(os.Args[1:], os.Stdout, os.Stderr)) }
