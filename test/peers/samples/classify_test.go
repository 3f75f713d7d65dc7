package samples

import "testing"

func TestClassify(t *testing.T) {
	for name, c := range map[string]struct {
		want  Component
		stack []string
	}{
		"assist of the collector": {gc, []string{"runtime.scanobject", "runtime.gcAssistAlloc", "runtime.mallocgc", "kvstore/internal/mvcc.(*list).insert"}},
		"allocation":              {alloc, []string{"runtime.mallocgcSmallNoscan", "runtime.mallocgc", "runtime.newobject", "google.golang.org/protobuf/proto.Unmarshal"}},
		"copy counts for caller":  {"raftlog", []string{"runtime.memmove", "bytes.(*Buffer).Write", "kvstore/internal/raftlog.(*Log).Commit"}},
		"waking another":          {scheduler, []string{"runtime.futex", "runtime.wakep", "runtime.ready", "kvstore/internal/host.(*Host).Submit"}},
		"idle":                    {scheduler, []string{"internal/runtime/syscall.Syscall6", "internal/runtime/syscall.EpollWait", "runtime.netpoll", "runtime.findRunnable", "runtime.schedule"}},
		"socket":                  {network, []string{"internal/runtime/syscall.Syscall6", "syscall.RawSyscall6", "syscall.write", "internal/poll.(*FD).Write", "net.(*conn).Write", "google.golang.org/grpc/internal/transport.(*bufWriter).Flush"}},
		"sync":                    {disk, []string{"internal/runtime/syscall.Syscall6", "syscall.Syscall", "golang.org/x/sys/unix.Fdatasync", "kvstore/internal/env/osfs.(*file).Sync"}},
		"package":                 {"gRPC", []string{"golang.org/x/net/http2/hpack.(*Decoder).Write", "google.golang.org/grpc/internal/transport.(*http2Server).operateHeaders"}},
		"generated code":          {"protobuf", []string{"kvstore/api/kvstore/v1.(*PutRequest).GetKey", "kvstore/internal/router.(*Router).Execute"}},
		"nobody's":                {other, []string{"runtime.memclrNoHeapPointers"}},
		"empty":                   {other, nil},
	} {
		if got := Classify(c.stack); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
