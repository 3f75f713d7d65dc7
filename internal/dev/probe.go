package dev

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	api "kvstore/api/kvstore/v1"
	"kvstore/internal/tlsconf"
)

// prober asks nodes how they are.
type prober struct {
	http   *http.Client
	scheme string
	creds  credentials.TransportCredentials
}

func newProber(section tlsconf.Config) (*prober, error) {
	p := &prober{scheme: "http", creds: insecure.NewCredentials()}
	var client *tls.Config
	if section.Enabled() {
		source, err := tlsconf.Open(section, tlsconf.Options{})
		if err != nil {
			return nil, err
		}
		client = source.Client()
		p.scheme, p.creds = "https", credentials.NewTLS(source.Client())
	}
	p.http = &http.Client{
		Timeout:   2 * time.Second,
		Transport: &http.Transport{TLSClientConfig: client, MaxIdleConnsPerHost: 1},
	}
	return p, nil
}

func (p *prober) close() { p.http.CloseIdleConnections() }

// ready reports whether all nodes are; reasons says for each why not yet.
func (p *prober) ready(ctx context.Context, nodes []Node, reasons []string) bool {
	all := true
	for i, n := range nodes {
		reasons[i] = p.notReady(ctx, n)
		if reasons[i] == "" {
			reasons[i] = p.misses(ctx, n)
		}
		all = all && reasons[i] == ""
	}
	return all
}

// misses says which nodes n cannot lead a client to yet: a node serves before
// it has read the addresses of all others.
func (p *prober) misses(ctx context.Context, n Node) string {
	status, err := p.status(ctx, n)
	if err != nil {
		return err.Error()
	}
	var unknown []string
	for _, other := range status.GetNodes() {
		if other.GetGrpc() == "" {
			unknown = append(unknown, other.GetName())
		}
	}
	if len(unknown) == 0 {
		return ""
	}
	return "does not know yet where to reach " + strings.Join(unknown, ", ")
}

// status asks a node over gRPC.
func (p *prober) status(ctx context.Context, n Node) (*api.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(n.GRPC, grpc.WithTransportCredentials(p.creds))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return api.NewKVStoreClient(conn).Status(ctx, &api.StatusRequest{})
}

func (p *prober) notReady(ctx context.Context, n Node) string {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.scheme+"://"+n.HTTP+"/readyz", nil)
	if err != nil {
		return err.Error()
	}
	resp, err := p.http.Do(req)
	if err != nil {
		return err.Error()
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 8<<10))
	_ = resp.Body.Close()
	if err == nil && resp.StatusCode == http.StatusOK {
		return ""
	}
	var problem struct {
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
		return problem.Detail
	}
	return strings.TrimSpace(fmt.Sprintf("%s: %s", resp.Status, body))
}

// role says in words what a node does; empty when it cannot be asked.
func (p *prober) role(ctx context.Context, n Node) string {
	status, err := p.status(ctx, n)
	if err != nil {
		return ""
	}
	var leads, hosts int
	meta := ""
	for _, g := range status.GetGroups() {
		if g.GetReplica() == 0 {
			continue
		}
		hosts++
		if g.GetRole() != "leader" {
			continue
		}
		leads++
		if g.GetGroup() == 0 {
			meta = ", the cluster's metadata among them"
		}
	}
	return fmt.Sprintf("leads %d of its %d groups%s", leads, hosts, meta)
}
