package ctl

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"kvstore/client"
	"kvstore/internal/ctl/ctxfile"
)

// Environment variables, each overridden by its flag.
const (
	envEndpoints = "KVCTL_ENDPOINTS"
	envContext   = "KVCTL_CONTEXT"
	envToken     = "KVCTL_TOKEN"
)

const defaultEndpoint = "127.0.0.1:8085"

// options are the flags of every command.
type options struct {
	endpoints   []string
	context     string
	namespace   string
	output      string
	timeout     time.Duration
	read        string
	zone        string
	gateway     bool
	tls         bool
	files       ctxfile.TLS
	insecureTok bool
}

// app is one run of the program.
type app struct {
	Streams
	// base is the program's context; a command's also ends with an interrupt.
	base context.Context //nolint:containedctx // the life of the program
	opts options
	// inherited are the options that a shell's commands begin with.
	inherited options
	target    target
	conn      *client.Client
	inShell   bool
}

// target is the cluster that commands talk to.
type target struct {
	endpoints []string
	from      string // which setting named them
	tls       *ctxfile.TLS
	namespace string
}

// resolve finds the target: flags, then environment, then the context, then
// the default endpoint.
func (o *options) resolve() (target, error) {
	t := target{endpoints: []string{defaultEndpoint}, from: "the default (see --endpoints, " + envEndpoints + " and kvctl context)"}
	c, name, err := o.loadContext()
	if err != nil {
		return target{}, err
	}
	if name != "" {
		t = target{endpoints: c.Endpoints, from: "context " + name, tls: c.TLS, namespace: c.Namespace}
	}
	if env := splitList(os.Getenv(envEndpoints)); len(env) > 0 && o.context == "" {
		t.endpoints, t.from = env, envEndpoints
	}
	if len(o.endpoints) > 0 {
		t.endpoints, t.from = o.endpoints, "--endpoints"
	}
	if o.namespace != "" {
		t.namespace = o.namespace
	}
	needTLS := false
	t.endpoints = slices.Clone(t.endpoints)
	for i, e := range t.endpoints {
		addr, secure, err := parseEndpoint(e)
		if err != nil {
			return target{}, usageError{fmt.Errorf("%w (from %s)", err, t.from)}
		}
		t.endpoints[i], needTLS = addr, needTLS || secure
	}
	if o.tls || needTLS || o.files != (ctxfile.TLS{}) {
		t.tls = mergeTLS(t.tls, o.files)
	}
	return t, nil
}

// loadContext returns the context to use; name is empty when there is none.
// Explicit endpoints do not inherit a context that was not asked for.
func (o *options) loadContext() (c ctxfile.Context, name string, err error) {
	name = o.context
	if name == "" {
		name = os.Getenv(envContext)
	}
	if name == "" && (len(o.endpoints) > 0 || os.Getenv(envEndpoints) != "") {
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

// parseEndpoint returns the host:port of an endpoint and whether its scheme
// asks for TLS. A URL without a port means the default port of its protocol.
func parseEndpoint(s string) (addr string, secure bool, err error) {
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

// looksLikeEndpoint says whether a first argument means `kvctl HOST:PORT`.
func looksLikeEndpoint(s string) bool {
	_, _, err := parseEndpoint(s)
	return err == nil
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// client connects on first use.
func (a *app) client(ctx context.Context) (*client.Client, error) {
	if a.conn != nil {
		return a.conn, nil
	}
	cfg, err := a.config()
	if err != nil {
		return nil, err
	}
	c, err := client.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a.conn = c
	return c, nil
}

// config is what the SDK needs to reach the target.
func (a *app) config() (client.Config, error) {
	t, err := a.opts.resolve()
	if err != nil {
		return client.Config{}, err
	}
	a.target = t
	read, err := client.ParseReadFrom(a.opts.read)
	if err != nil {
		return client.Config{}, usageError{err}
	}
	cfg := client.Config{
		Endpoints: t.endpoints, Namespace: t.namespace, Timeout: a.opts.timeout, Read: read, Zone: a.opts.zone,
		Gateway: a.opts.gateway, Token: os.Getenv(envToken), PlaintextToken: a.opts.insecureTok, UserAgent: "kvctl",
	}
	if t.tls == nil {
		return cfg, nil
	}
	cfg.TLS, err = client.LoadTLS(t.tls.CAFile, t.tls.CertFile, t.tls.KeyFile)
	if err != nil {
		return cfg, err
	}
	cfg.TLS.ServerName = t.tls.ServerName
	return cfg, nil
}

func (a *app) close() {
	if a.conn != nil {
		_ = a.conn.Close() // returns nil
	}
}

// namespace is the one commands work in.
func (a *app) namespace() string {
	if a.target.namespace == "" {
		return "default"
	}
	return a.target.namespace
}
