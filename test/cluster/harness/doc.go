// Package harness runs clusters of real processes for tests: the binaries of
// this module, built once per run, `kvstore dev` with data, ports and kvctl
// contexts of its own, and the means to kill, pause and restart single nodes.
//
// Every process dies with the test: a cleanup kills it, and on Linux the kernel
// does when the test binary itself is killed.
package harness
