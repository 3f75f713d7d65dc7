package client

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// ReadFrom chooses the replica that serves a read. Every choice gives
// linearizable reads; they differ in who does the work.
type ReadFrom int

const (
	// readDefault is Config.Read in options and Auto in a Config.
	readDefault ReadFrom = iota
	// Leader sends reads to the group's leader.
	Leader
	// Any spreads reads over all healthy replicas by outstanding load.
	Any
	// Nearest spreads reads over the healthy replicas of Config.Zone, over all
	// when that zone has none.
	Nearest
	// Auto sends reads to one node, the same one each time, while the client has few
	// of them under way (64), which costs less than asking each leader, and to leaders
	// when it has more or that node is slow. The node is of Config.Zone if it can be.
	Auto
)

func (r ReadFrom) String() string {
	switch r {
	case Any:
		return "any"
	case Nearest:
		return "nearest"
	case Leader:
		return "leader"
	case readDefault, Auto:
		return "auto"
	}
	return fmt.Sprintf("ReadFrom(%d)", int(r))
}

// ParseReadFrom reads "auto", "leader", "any" or "nearest".
func ParseReadFrom(s string) (ReadFrom, error) {
	for _, r := range []ReadFrom{Auto, Leader, Any, Nearest} {
		if s == r.String() {
			return r, nil
		}
	}
	return readDefault, newError(CodeInvalidArgument, "unknown read policy", "value", s, "allowed", "auto, leader, any, nearest")
}

// Config says how to reach a cluster. Zero values mean the defaults named.
type Config struct {
	// Endpoints are host:port addresses of any nodes; grpc:// and http://
	// prefixes are accepted, grpcs:// and https:// require TLS. At least one.
	Endpoints []string
	// TLS is used for every connection; nil means plaintext. See LoadTLS.
	TLS *tls.Config
	// Token is sent as "authorization: Bearer" with every request. It needs
	// TLS unless PlaintextToken is set.
	Token          string
	PlaintextToken bool
	// Namespace of verbs without InNamespace ("default").
	Namespace string
	// Read says which replicas serve reads (Leader).
	Read ReadFrom
	// Zone is where this client runs, for Nearest.
	Zone string
	// Gateway keeps to Endpoints and never connects to addresses the cluster
	// advertises, for clients behind a load balancer.
	Gateway bool
	// NoRequestIDs sends transactions, conditional writes and atomic batches without
	// ids of this package's making: their outcome is then unknown when an answer is
	// lost, and servers remember nothing for them.
	NoRequestIDs bool
	// Timeout bounds an operation whose context has no deadline (10 s).
	Timeout time.Duration
	// ConnsPerNode is the number of connections to each node (1, at most 64).
	ConnsPerNode int
	// MaxPending bounds the operations that wait on one connection (65,536);
	// above it they fail with ErrOverloaded.
	MaxPending int
	// MaxPendingBytes bounds the bytes of operations that wait to be sent on
	// one connection (64 MB); above it they fail with ErrOverloaded.
	MaxPendingBytes int
	// RefreshInterval is the time between looks at the topology (3 s). Hints in
	// answers make it look sooner.
	RefreshInterval time.Duration
	// RetryBase and RetryMax bound the backoff between attempts (5 ms, 500 ms).
	RetryBase time.Duration
	RetryMax  time.Duration
	// ProbeAfter is how long a node may leave requests unanswered before it is
	// probed (250 ms), ProbeTimeout how long the probe may take (500 ms). A
	// node that fails it gets no requests until a later probe succeeds.
	ProbeAfter   time.Duration
	ProbeTimeout time.Duration
	// ConnectTimeout bounds connecting to one node (1 s).
	ConnectTimeout time.Duration
	// UserAgent names the program in the server's logs ("kvstore-go").
	UserAgent string
	// Logger gets changes of node health; nil means none.
	Logger *slog.Logger
}

const (
	defaultNamespace       = "default"
	defaultTimeout         = 10 * time.Second
	defaultMaxPending      = 65536
	defaultMaxPendingBytes = 64 << 20
	defaultRefresh         = 3 * time.Second
	defaultRetryBase       = 5 * time.Millisecond
	defaultRetryMax        = 500 * time.Millisecond
	defaultProbeAfter      = 250 * time.Millisecond
	defaultProbeTimeout    = 500 * time.Millisecond
	defaultConnectTimeout  = time.Second
	maxConnsPerNode        = 64
)

// withDefaults returns c with every zero value replaced.
func (c Config) withDefaults() Config {
	setDefault(&c.Namespace, defaultNamespace)
	setDefault(&c.Read, Auto)
	setDefault(&c.Timeout, defaultTimeout)
	setDefault(&c.ConnsPerNode, 1)
	setDefault(&c.MaxPending, defaultMaxPending)
	setDefault(&c.MaxPendingBytes, defaultMaxPendingBytes)
	setDefault(&c.RefreshInterval, defaultRefresh)
	setDefault(&c.RetryBase, defaultRetryBase)
	setDefault(&c.RetryMax, defaultRetryMax)
	setDefault(&c.ProbeAfter, defaultProbeAfter)
	setDefault(&c.ProbeTimeout, defaultProbeTimeout)
	setDefault(&c.ConnectTimeout, defaultConnectTimeout)
	setDefault(&c.UserAgent, "kvstore-go")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

func setDefault[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// validate reports every problem at once.
func (c Config) validate() error {
	var problems []error
	bad := func(name string, value any, allowed string) {
		problems = append(problems, newError(CodeInvalidArgument, "bad client configuration", "field", name, "value", value, "allowed", allowed))
	}
	if len(c.Endpoints) == 0 {
		bad("Endpoints", "none", "at least one host:port")
	}
	for _, e := range c.Endpoints {
		if _, err := parseEndpoint(e, c.TLS != nil); err != nil {
			problems = append(problems, err)
		}
	}
	if c.Token != "" && c.TLS == nil && !c.PlaintextToken {
		bad("Token", "set", "with TLS, or with PlaintextToken")
	}
	if c.Read < Leader || c.Read > Auto {
		bad("Read", int(c.Read), "Auto, Leader, Any, Nearest")
	}
	if c.ConnsPerNode < 1 || c.ConnsPerNode > maxConnsPerNode {
		bad("ConnsPerNode", c.ConnsPerNode, "1 to 64")
	}
	if c.MaxPending < 1 || c.MaxPending > 1<<20 {
		bad("MaxPending", c.MaxPending, "1 to 1048576")
	}
	if c.MaxPendingBytes < 1 {
		bad("MaxPendingBytes", c.MaxPendingBytes, "1 or more")
	}
	for name, d := range map[string]time.Duration{
		"Timeout": c.Timeout, "RefreshInterval": c.RefreshInterval, "RetryBase": c.RetryBase,
		"RetryMax": c.RetryMax, "ProbeAfter": c.ProbeAfter, "ProbeTimeout": c.ProbeTimeout, "ConnectTimeout": c.ConnectTimeout,
	} {
		if d < 0 {
			bad(name, d, "0 or more")
		}
	}
	return errors.Join(problems...)
}

// parseEndpoint returns the host:port of an endpoint.
func parseEndpoint(s string, haveTLS bool) (string, error) {
	scheme, addr, found := strings.Cut(s, "://")
	if !found {
		scheme, addr = "", s
	}
	addr = strings.TrimSuffix(addr, "/")
	switch scheme {
	case "", "grpc", "http":
	case "grpcs", "https":
		if !haveTLS {
			return "", newError(CodeInvalidArgument, "endpoint needs TLS", "endpoint", s)
		}
	default:
		return "", newError(CodeInvalidArgument, "unknown endpoint scheme", "endpoint", s, "allowed", "host:port, grpc://, grpcs://, http://, https://")
	}
	host, port, ok := cutLast(addr, ':')
	if !ok || host == "" || port == "" || strings.ContainsAny(addr, "/ \t") {
		return "", newError(CodeInvalidArgument, "endpoint is not host:port", "endpoint", s)
	}
	return addr, nil
}

func cutLast(s string, sep byte) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
