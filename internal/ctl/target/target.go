// Package target finds the cluster that a command line tool talks to: flags,
// then environment, then the contexts file, then the default endpoint.
package target

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"kvstore/client"
	"kvstore/internal/ctl/ctxfile"
)

// Environment variables; flags win over the first two.
const (
	EnvEndpoints = "KVCTL_ENDPOINTS"
	EnvContext   = "KVCTL_CONTEXT"
	EnvToken     = "KVCTL_TOKEN" //nolint:gosec // the name of a variable
)

const (
	defaultEndpoint = "127.0.0.1:8085"
	defaultTimeout  = 10 * time.Second
)

// UsageError is a setting that cannot be used.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }
func (e UsageError) Unwrap() error { return e.Err }

// Flags are the settings of the command line.
type Flags struct {
	Endpoints      []string
	Context        string
	Namespace      string
	Timeout        time.Duration
	Read           string
	Zone           string
	Gateway        bool
	TLS            bool
	Files          ctxfile.TLS
	TokenFile      string
	PlaintextToken bool
}

// Default returns the settings before any flag.
func Default() Flags { return Flags{Timeout: defaultTimeout, Read: client.Leader.String()} }

// Add declares the flags.
func (o *Flags) Add(f *pflag.FlagSet) {
	f.StringSliceVarP(&o.Endpoints, "endpoints", "e", o.Endpoints, "nodes to connect to: host:port, grpc://, grpcs://, http:// or https:// (env "+EnvEndpoints+")")
	f.StringVar(&o.Context, "context", o.Context, "named cluster of the contexts file (env "+EnvContext+")")
	f.StringVarP(&o.Namespace, "namespace", "n", o.Namespace, "namespace of the keys (default \"default\", or the context's)")
	f.DurationVar(&o.Timeout, "timeout", o.Timeout, "how long one operation may take")
	f.StringVar(&o.Read, "read", o.Read, "replicas that serve reads: leader, any, nearest or auto; all are linearizable")
	f.StringVar(&o.Zone, "zone", o.Zone, "where this program runs, for --read nearest")
	f.BoolVar(&o.Gateway, "gateway", o.Gateway, "use only the given endpoints, for clusters behind a load balancer")
	f.BoolVar(&o.TLS, "tls", o.TLS, "use TLS")
	f.StringVar(&o.Files.CAFile, "ca-file", o.Files.CAFile, "certificates that verify the nodes, PEM (default: the system's)")
	f.StringVar(&o.Files.CertFile, "cert-file", o.Files.CertFile, "certificate of this client, PEM")
	f.StringVar(&o.Files.KeyFile, "key-file", o.Files.KeyFile, "key of this client, PEM")
	f.StringVar(&o.Files.ServerName, "server-name", o.Files.ServerName, "name to expect in the nodes' certificates")
	f.StringVar(&o.TokenFile, "token-file", o.TokenFile, "file with the token to show (default: env "+EnvToken+")")
	f.BoolVar(&o.PlaintextToken, "plaintext-token", o.PlaintextToken, "send the token also without TLS")
}

// Target is the cluster that was found.
type Target struct {
	// Endpoints are host:port.
	Endpoints []string
	// From says which setting named them.
	From string
	// TLS is nil for plaintext.
	TLS       *ctxfile.TLS
	Namespace string
	// TokenFile is the context's.
	TokenFile string
}

// Resolve finds the target: flags, then environment, then the context, then
// the default endpoint.
func (o *Flags) Resolve() (Target, error) {
	t := Target{Endpoints: []string{defaultEndpoint}, From: "the default (see --endpoints, " + EnvEndpoints + " and kvctl context)"}
	c, name, err := o.loadContext()
	if err != nil {
		return Target{}, err
	}
	if name != "" {
		t = Target{Endpoints: c.Endpoints, From: "context " + name, TLS: c.TLS, Namespace: c.Namespace, TokenFile: c.TokenFile}
	}
	if env := splitList(os.Getenv(EnvEndpoints)); len(env) > 0 && o.Context == "" {
		t.Endpoints, t.From = env, EnvEndpoints
	}
	if len(o.Endpoints) > 0 {
		t.Endpoints, t.From = o.Endpoints, "--endpoints"
	}
	if o.Namespace != "" {
		t.Namespace = o.Namespace
	}
	needTLS := false
	t.Endpoints = slices.Clone(t.Endpoints)
	for i, e := range t.Endpoints {
		addr, secure, err := ParseEndpoint(e)
		if err != nil {
			return Target{}, UsageError{fmt.Errorf("%w (from %s)", err, t.From)}
		}
		t.Endpoints[i], needTLS = addr, needTLS || secure
	}
	if o.TLS || needTLS || o.Files != (ctxfile.TLS{}) {
		t.TLS = mergeTLS(t.TLS, o.Files)
	}
	return t, nil
}

// loadContext returns the context to use; name is empty when there is none.
// Explicit endpoints do not inherit a context that was not asked for.
func (o *Flags) loadContext() (c ctxfile.Context, name string, err error) {
	name = o.Context
	if name == "" {
		name = os.Getenv(EnvContext)
	}
	if name == "" && (len(o.Endpoints) > 0 || os.Getenv(EnvEndpoints) != "") {
		return c, "", nil
	}
	path, err := ctxfile.Path()
	if err != nil {
		return c, "", err
	}
	f, err := ctxfile.Load(path)
	if err != nil {
		return c, "", err
	}
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return c, "", nil
	}
	c, err = f.Get(name)
	return c, name, err
}

// mergeTLS puts flags over a context's files.
func mergeTLS(base *ctxfile.TLS, over ctxfile.TLS) *ctxfile.TLS {
	out := ctxfile.TLS{}
	if base != nil {
		out = *base
	}
	for _, f := range []struct {
		to   *string
		from string
	}{{&out.CAFile, over.CAFile}, {&out.CertFile, over.CertFile}, {&out.KeyFile, over.KeyFile}, {&out.ServerName, over.ServerName}} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	return &out
}

// ParseEndpoint returns the host:port of an endpoint and whether its scheme
// asks for TLS. A URL without a port means the default port of its protocol.
func ParseEndpoint(s string) (addr string, secure bool, err error) {
	scheme, rest, hasScheme := strings.Cut(s, "://")
	port := ""
	if !hasScheme {
		scheme, rest = "", s
	}
	switch scheme {
	case "":
	case "grpc", "grpcs":
		port = "8085"
	case "http", "https":
		port = "8080"
	default:
		return "", false, fmt.Errorf("endpoint %q: unknown scheme %q (allowed: host:port, grpc://, grpcs://, http://, https://)", s, scheme)
	}
	rest = strings.TrimSuffix(rest, "/")
	host, p, err := net.SplitHostPort(rest)
	if err != nil && port != "" && !strings.ContainsAny(rest, "/ ") && rest != "" {
		host, p, err = strings.Trim(rest, "[]"), port, nil
	}
	if err != nil || host == "" || p == "" || strings.ContainsAny(rest, "/ \t") {
		return "", false, fmt.Errorf("endpoint %q is not host:port", s)
	}
	return net.JoinHostPort(host, p), strings.HasSuffix(scheme, "s"), nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// Config is what the SDK needs to reach the target.
func (o *Flags) Config(userAgent string) (client.Config, Target, error) {
	t, err := o.Resolve()
	if err != nil {
		return client.Config{}, t, err
	}
	read, err := client.ParseReadFrom(o.Read)
	if err != nil {
		return client.Config{}, t, UsageError{err}
	}
	token, err := o.token(t)
	if err != nil {
		return client.Config{}, t, err
	}
	cfg := client.Config{
		Endpoints: t.Endpoints, Namespace: t.Namespace, Timeout: o.Timeout, Read: read, Zone: o.Zone,
		Gateway: o.Gateway, Token: token, PlaintextToken: o.PlaintextToken, UserAgent: userAgent,
	}
	if t.TLS == nil {
		return cfg, t, nil
	}
	cfg.TLS, err = client.LoadTLS(t.TLS.CAFile, t.TLS.CertFile, t.TLS.KeyFile)
	if err != nil {
		return cfg, t, err
	}
	cfg.TLS.ServerName = t.TLS.ServerName
	return cfg, t, nil
}
