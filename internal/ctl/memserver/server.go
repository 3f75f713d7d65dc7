// Package memserver is a KVStore and a Cluster service over a map, in this process, for the
// tests of the command line tools: small, exact about the contract of
// api/kvstore/v1, and able to fail on request.
package memserver

import (
	"hash/crc32"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/profiling"
)

const (
	maxKeyBytes     = 1024
	maxValueBytes   = 16 << 20
	maxMessageBytes = 20 << 20
	slots           = 4096
	// firstRevision makes revisions and times the same in every run.
	firstRevision = uint64(1_800_000_000_000) << 16
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Server is the service. The zero value is not usable; see Start.
type Server struct {
	api.UnimplementedKVStoreServer
	// Addr is the host:port it listens on.
	Addr string
	grpc *grpc.Server
	// profiles is of this process, and refuses when it was turned off.
	profiles atomic.Pointer[profiling.Recorder]

	mu sync.Mutex // guards what follows
	// fail is asked before every operation on a key.
	fail func(verb, key string) error
	// intercept runs operations of pipelines, or does not.
	intercept func(op *api.PipelineOp, run func() error) error
	revision  uint64
	spaces    map[string]*space
	nextID    uint32
	jobs      map[string]*api.Job
	stuck     bool
	shape     *shape
	requests  map[string]*api.TransactionResponse // by id
}

// space is one namespace.
type space struct {
	info    *api.Namespace
	records map[string]*api.Record
	kept    kept
}

// Start serves on a free port of loopback until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	s := &Server{
		Addr: l.Addr().String(), revision: firstRevision,
		grpc:   grpc.NewServer(grpc.MaxRecvMsgSize(maxMessageBytes), grpc.MaxSendMsgSize(maxMessageBytes)),
		spaces: map[string]*space{}, jobs: map[string]*api.Job{}, requests: map[string]*api.TransactionResponse{},
	}
	s.create("default")
	s.profiles.Store(profiling.New(true))
	s.shape = newShape(s)
	api.RegisterKVStoreServer(s.grpc, s)
	api.RegisterClusterServer(s.grpc, s.shape)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.grpc.Serve(l)
	}()
	t.Cleanup(func() {
		s.grpc.Stop()
		<-done
	})
	return s
}

// FailWith makes every later operation on a key ask fail first; verb is put,
// get, delete or list. A nil fail ends that. fail runs inside the operation:
// of this type's methods it may call only Replace.
func (s *Server) FailWith(fail func(verb, key string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

// Intercept makes every operation of a pipeline pass through f, which executes it
// with run, or does not, and says what is answered. It is called by one goroutine
// for each stream.
func (s *Server) Intercept(f func(op *api.PipelineOp, run func() error) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = f
}

// Record returns the record of a key in the namespace default, or nil.
func (s *Server) Record(key string) *api.Record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.spaces["default"].records[key]
}

// Change alters a stored record behind the service's back.
func (s *Server) Change(key string, change func(*api.Record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.spaces["default"].records[key])
}

// Replace stores another value with the checksum it should have; fail may
// call it.
func (s *Server) Replace(key string, value []byte) {
	rec := s.spaces["default"].records[key]
	rec.Value, rec.Checksum, rec.Size = value, crc32.Checksum(value, castagnoli), uint64(len(value))
}

// Len counts the records of the namespace default.
func (s *Server) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.spaces["default"].records)
}

func (s *Server) create(name string) *api.Namespace {
	s.nextID++
	info := &api.Namespace{Name: name, Id: s.nextID, State: "active", CreatedAtMs: milli(s.revision)}
	s.spaces[name] = &space{info: info, records: map[string]*api.Record{}, kept: kept{}}
	return info
}

// milli is the time part of a revision.
func milli(revision uint64) int64 { return int64(revision >> 16) }

// next stamps a write, one second after the one before. mu must be held.
func (s *Server) next() uint64 {
	s.revision += 1000 << 16
	return s.revision
}

// space returns a namespace; the empty name is default. mu must be held.
func (s *Server) space(name string) (*space, error) {
	if name == "" {
		name = "default"
	}
	sp, ok := s.spaces[name]
	if !ok {
		return nil, Errorf("namespace_not_found", "namespace does not exist", "namespace", name)
	}
	return sp, nil
}

// admit checks a key and asks fail. mu must be held.
func (s *Server) admit(verb, key string) error {
	if s.fail != nil {
		if err := s.fail(verb, key); err != nil {
			return err
		}
	}
	if verb != "list" && key == "" {
		return Errorf("invalid_key", "key is empty")
	}
	if len(key) > maxKeyBytes {
		return Errorf("key_too_large", "key is too long", "limit", "1024", "actual", itoa(len(key)))
	}
	return nil
}

// Errorf returns an error as a node answers it; kv are details in turn.
func Errorf(code, message string, kv ...string) error {
	st := status.New(grpcCode(code), message)
	d := &api.ErrorDetail{Code: code, Details: map[string]string{}}
	for i := 0; i+1 < len(kv); i += 2 {
		d.Details[kv[i]] = kv[i+1]
	}
	st, err := st.WithDetails(d)
	if err != nil {
		panic("memserver: error detail: " + err.Error())
	}
	return st.Err()
}

func grpcCode(code string) codes.Code {
	switch code {
	case "not_found", "namespace_not_found":
		return codes.NotFound
	case "condition_failed", "batch_aborted", "cross_group":
		return codes.FailedPrecondition
	case "namespace_exists":
		return codes.AlreadyExists
	case "overloaded":
		return codes.ResourceExhausted
	case "unavailable", "wrong_leader":
		return codes.Unavailable
	case "unknown_outcome", "internal":
		return codes.Internal
	case "deadline_exceeded":
		return codes.DeadlineExceeded
	case "out_of_range":
		return codes.OutOfRange
	case "permission_denied":
		return codes.PermissionDenied
	default:
		return codes.InvalidArgument
	}
}
