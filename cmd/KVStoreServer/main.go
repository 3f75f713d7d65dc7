// Command KVStoreServer is `kvstore server` under the name that deployments
// know (S0.4).
package main

import (
	"os"

	"kvstore/internal/command"
)

func main() { os.Exit(command.ServerMain(os.Args[1:], os.Stdout, os.Stderr)) }
