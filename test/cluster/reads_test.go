//go:build unix

package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
	"kvstore/test/cluster/harness"
)

// TestReadYourWritesAnywhere (ASKS F3): what one node acknowledged, every other
// one returns at once.
func TestReadYourWritesAnywhere(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	var clients []*client.Client
	for _, n := range c.Nodes() {
		clients = append(clients, c.Client(client.Config{Endpoints: []string{n.GRPC}, Gateway: true, Read: client.Any}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*harness.Patience)
	defer cancel()
	for n := range 150 * *chaos {
		key, want := fmt.Sprintf("ryw/%d", n%16), fmt.Sprint(n)
		if _, err := clients[n%3].Put(ctx, key, []byte(want)); err != nil {
			t.Fatal(err)
		}
		for i, cl := range clients {
			rec, err := cl.Get(ctx, key)
			if err != nil || string(rec.Value) != want || rec.Read.Consistency != client.Linearizable {
				t.Fatalf("node %d reads %q (%v), want %q: %v", i, rec.Value, rec.Read.Consistency, want, err)
			}
		}
	}
	stale, err := clients[1].Get(ctx, "ryw/0", client.WithMaxStaleness(5*time.Second))
	if err != nil || stale.Read.Consistency != client.BoundedStaleness || stale.Read.Age > 5*time.Second {
		t.Errorf("stale read: %+v, %v", stale.Read, err)
	}
	for _, size := range []int{1, 300, 3 << 20} {
		sameValueEverywhere(ctx, t, c, clients, fmt.Sprint("size/", size), bytes.Repeat([]byte("v"), size))
	}
}

// sameValueEverywhere reads a value in all ways on all nodes.
func sameValueEverywhere(ctx context.Context, t *testing.T, c *harness.Cluster, clients []*client.Client, key string, value []byte) {
	t.Helper()
	if _, err := clients[0].Put(ctx, key, value); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.Nodes() {
		same := func(way string, got []byte, err error) {
			t.Helper()
			if err != nil || !bytes.Equal(got, value) {
				t.Errorf("node %d, %d bytes by %s: %d bytes, %v", i, len(value), way, len(got), err)
			}
		}
		rec, err := clients[i].Get(ctx, key)
		same("the SDK", rec.Value, err)
		if stream, err := clients[i].GetReader(ctx, key); err != nil {
			same("the SDK's stream", nil, err)
		} else {
			got, err := io.ReadAll(stream)
			same("the SDK's stream", got, errors.Join(err, stream.Close()))
		}
		for _, addr := range []string{n.GRPC, n.HTTP} {
			got, err := api.NewKVStoreClient(dial(t, addr)).Get(ctx, &api.GetRequest{Key: key})
			same("unary gRPC", got.GetRecord().GetValue(), err)
		}
		_, body, err := c.Get(n, "/api/v1/keys/"+key)
		same("REST", []byte(body), err)
	}
}

// TestOneNodeDown: the other nodes answer everything.
func TestOneNodeDown(t *testing.T) {
	t.Parallel()
	c := harness.Start(t, harness.Options{})
	everyNodeAnswers(t, c, 3)
	c.Kill(2)
	everyNodeAnswers(t, c, 2)
	status := c.MustCtl("status", "-o", "raw")
	if status == "" {
		t.Error("no status")
	}
	c.Restart(2)
	c.WaitReady()
	everyNodeAnswers(t, c, 3)
}

// TestServices: health and reflection, on the gRPC port and on the HTTP port.
func TestServices(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), harness.Patience)
	defer cancel()
	for _, n := range c.Nodes() {
		for _, addr := range []string{n.GRPC, n.HTTP} {
			conn := dial(t, addr)
			for _, service := range []string{"", "kvstore.v1.KVStore"} {
				harness.Eventually(t, func() error {
					h, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
					if err == nil && h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
						err = fmt.Errorf("health of %q at %s: %v", service, addr, h)
					}
					return err
				})
			}
			found := false
			for _, name := range reflected(t, ctx, reflectionpb.NewServerReflectionClient(conn)) {
				found = found || name == "kvstore.v1.KVStore"
			}
			if !found {
				t.Errorf("reflection at %s does not name kvstore.v1.KVStore", addr)
			}
		}
		if status, body, err := c.Get(n, "/api/v1/openapi.yaml"); err != nil || status != http.StatusOK || len(body) < 1000 {
			t.Errorf("openapi.yaml: %d, %d bytes, %v", status, len(body), err)
		}
	}
}

func reflected(t *testing.T, ctx context.Context, r reflectionpb.ServerReflectionClient) (names []string) {
	t.Helper()
	stream, err := r.ServerReflectionInfo(ctx)
	if err != nil {
		t.Fatal(err)
	}
	list := &reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}
	if err := stream.Send(list); err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names
}
