// Package samples fetches CPU profiles of nodes and divides their samples among
// components.
package samples

import "strings"

// Component is what a sample counts for.
type Component string

const (
	gc        Component = "garbage collection"
	alloc     Component = "allocation"
	scheduler Component = "scheduler, channels, locks"
	network   Component = "network system calls"
	disk      Component = "disk system calls"
	otherCall Component = "other system calls"
	other     Component = "everything else"
)

// owners are the components of packages, by prefix; the first match counts.
var owners = []struct {
	prefix string
	Component
}{
	{"go.etcd.io/raft", "raft"},
	{"kvstore/internal/raftlog", "raftlog"},
	{"kvstore/internal/env", "raftlog"},
	{"kvstore/internal/mvcc", "mvcc (delta)"},
	{"kvstore/internal/engine", "Badger"},
	{"github.com/dgraph-io", "Badger"},
	{"kvstore/internal/host", "host, replica"},
	{"kvstore/internal/replica", "host, replica"},
	{"kvstore/internal/format", "formats, keys"},
	{"kvstore/internal/keyspace", "formats, keys"},
	{"kvstore/internal/transport", "peer transport"},
	{"kvstore/internal/router", "router, servers"},
	{"kvstore/internal/server", "router, servers"},
	{"kvstore/internal/guard", "router, servers"},
	{"kvstore/internal/metrics", "metrics"},
	{"github.com/prometheus", "metrics"},
	{"google.golang.org/grpc", "gRPC"},
	{"golang.org/x/net", "gRPC"},
	{"google.golang.org/protobuf", "protobuf"},
	{"kvstore/api", "protobuf"},
	{"kvstore/", "other kvstore"},
}

// Classify finds the component of one sample, from the inside out: work of
// the collector wherever it happens; system calls by what they are for; the
// runtime's allocation and scheduling; else the first package that is not of
// the standard library, so that copying and checksums count for who asked.
func Classify(stack []string) Component {
	if anyOf(stack, "runtime.gcBgMarkWorker", "runtime.gcAssistAlloc", "runtime.bgsweep", "runtime.bgscavenge", "runtime.gcDrain", "runtime.gcStart", "runtime.gcMarkDone") {
		return gc
	}
	own := runtimePart(stack)
	if anyOf(own, "runtime.schedule", "runtime.findRunnable", "runtime.mcall", "runtime.park_m", "runtime.mstart", "runtime.sysmon", "runtime.goready",
		"runtime.ready", "runtime.wakep", "runtime.startm", "runtime.futex", "runtime.chansend", "runtime.chanrecv", "runtime.selectgo", "runtime.lock2",
		"runtime.unlock2", "runtime.semacquire", "runtime.semrelease", "runtime.newproc", "runtime.netpoll", "runtime.goexit0", "runtime.usleep",
		"runtime.exitsyscall", "runtime.entersyscall", "runtime.reentersyscall", "internal/runtime/exithook", "runtime.runtimer", "runtime.(*timer", "runtime.(*timers", "runtime.osyield") {
		return scheduler
	}
	if anyOf(stack[:min(len(stack), 2)], "internal/runtime/syscall.", "runtime/internal/syscall.", "syscall.", "golang.org/x/sys/unix.") {
		return call(stack)
	}
	if anyOf(own, "runtime.mallocgc", "runtime.newobject", "runtime.growslice", "runtime.makeslice", "runtime.makemap", "runtime.newarray", "runtime.newstack", "runtime.morestack") {
		return alloc
	}
	for _, name := range stack {
		for _, o := range owners {
			if strings.HasPrefix(name, o.prefix) {
				return o.Component
			}
		}
	}
	return other
}

// call tells system calls apart by who makes them.
func call(stack []string) Component {
	switch {
	case anyOf(stack, "net.(*"):
		return network
	case anyOf(stack, "os.(*File)", "golang.org/x/sys/unix.Fdatasync", "golang.org/x/sys/unix.Fsync", "golang.org/x/sys/unix.Fallocate", "syscall.Fdatasync", "syscall.Fsync",
		"kvstore/internal/env", "kvstore/internal/raftlog", "github.com/dgraph-io/badger"):
		return disk
	default:
		return otherCall
	}
}

// runtimePart is the frames inside the innermost one that is not the
// runtime's.
func runtimePart(stack []string) []string {
	for i, name := range stack {
		if !strings.HasPrefix(name, "runtime.") && !strings.HasPrefix(name, "internal/runtime/") && !strings.HasPrefix(name, "sync.") && !strings.HasPrefix(name, "internal/sync.") {
			return stack[:i]
		}
	}
	return stack
}

func anyOf(stack []string, prefixes ...string) bool {
	for _, name := range stack {
		for _, p := range prefixes {
			if strings.HasPrefix(name, p) {
				return true
			}
		}
	}
	return false
}
