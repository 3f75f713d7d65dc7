package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"kvstore/client"
)

// connect is what every example starts with. The examples have no checked
// output, because they need a cluster: TestExamples runs them against the one
// that KVCTL_ENDPOINTS names, or against a fake one.
func connect(ctx context.Context) *client.Client {
	c, err := client.New(ctx, client.Config{Endpoints: strings.Split(os.Getenv("KVCTL_ENDPOINTS"), ",")})
	check(err)
	return c
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func TestExamples(t *testing.T) {
	if os.Getenv("KVCTL_ENDPOINTS") == "" {
		t.Setenv("KVCTL_ENDPOINTS", strings.Join(client.StartFakeCluster(t), ","))
	}
	for name, example := range map[string]func(){
		"New": ExampleNew, "Put": ExampleClient_Put, "PutConditions": ExampleClient_Put_conditions, "Get": ExampleClient_Get,
		"GetReplicas": ExampleClient_Get_replicas, "Delete": ExampleClient_Delete, "Exists": ExampleClient_Exists,
		"BatchPut": ExampleClient_BatchPut, "BatchGet": ExampleClient_BatchGet, "BatchDelete": ExampleClient_BatchDelete,
		"List": ExampleClient_List, "Scan": ExampleClient_Scan, "Count": ExampleClient_Count, "PutReader": ExampleClient_PutReader,
		"GetReader": ExampleClient_GetReader, "Status": ExampleClient_Status, "StatusOf": ExampleClient_StatusOf, "Nodes": ExampleClient_Nodes,
		"Digest": ExampleClient_Digest, "CreateNamespace": ExampleClient_CreateNamespace, "ListNamespaces": ExampleClient_ListNamespaces,
		"Txn": ExampleClient_Txn, "Transact": ExampleClient_Transact,
		"DeleteNamespace": ExampleClient_DeleteNamespace, "UnknownOutcome": ExampleError_unknownOutcome,
	} {
		t.Run(name, func(*testing.T) { example() })
	}
}

func ExampleNew() {
	ctx := context.Background()
	c, err := client.New(ctx, client.Config{
		Endpoints: strings.Split(os.Getenv("KVCTL_ENDPOINTS"), ","), // any nodes will do
		Read:      client.Nearest,
		Zone:      "us-east-1a",
		Timeout:   5 * time.Second,
	})
	check(err)
	defer func() { check(c.Close()) }()
	_, err = c.Put(ctx, "example/new", []byte("hello"))
	check(err)
}

func ExampleClient_Put() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	r, err := c.Put(ctx, "example/session", []byte(`{"user":123}`),
		client.WithTTL(24*time.Hour), client.WithContentType("application/json"), client.WithTag("kind", "session"))
	check(err)
	fmt.Println("version", r.Version, "expires", r.ExpiresAt)
}

// Create a key once, then update it only if nobody else did.
func ExampleClient_Put_conditions() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	_, err := c.Put(ctx, "example/profile", []byte("1"), client.IfAbsent())
	if err != nil && !errors.Is(err, client.ErrConditionFailed) {
		check(err)
	}
	rec, err := c.Get(ctx, "example/profile")
	check(err)
	_, err = c.Put(ctx, "example/profile", append(rec.Value, '+'), client.IfRevision(rec.Revision))
	if errors.Is(err, client.ErrConditionFailed) {
		fmt.Println("somebody else was faster: read it again")
	}
}

func ExampleClient_Get() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	rec, err := c.Get(ctx, "example/session")
	switch {
	case errors.Is(err, client.ErrNotFound):
		fmt.Println("no session")
	case err != nil:
		panic(err)
	default:
		fmt.Println(string(rec.Value), rec.ContentType, rec.Version)
	}
}

// Linearizable from any replica, and up to a second old from the nearest.
func ExampleClient_Get_replicas() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	for _, opts := range [][]client.GetOption{
		{client.From(client.Any)},
		{client.From(client.Nearest), client.WithMaxStaleness(time.Second)},
	} {
		rec, err := c.Get(ctx, "example/session", opts...)
		if !errors.Is(err, client.ErrNotFound) {
			check(err)
			fmt.Println(rec.Read.Consistency, rec.Read.Age)
		}
	}
}

func ExampleClient_Delete() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	r, err := c.Delete(ctx, "example/temp")
	check(err)
	fmt.Println("was there:", r.Existed)
}

func ExampleClient_Exists() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	ok, err := c.Exists(ctx, "example/session")
	check(err)
	fmt.Println(ok)
}

// Keys with the same text in {braces} are in one group, where a batch can be
// atomic.
func ExampleClient_BatchPut() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	results, err := c.BatchPut(ctx, []client.PutItem{
		{Key: "example/{user:123}/profile", Value: []byte("p")},
		{Key: "example/{user:123}/last_login", Value: []byte("now"), TTL: 24 * time.Hour},
	}, client.Atomic())
	check(err)
	for _, r := range results {
		fmt.Println(r.Version, r.Revision)
	}
}

func ExampleClient_BatchGet() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	results, err := c.BatchGet(ctx, []string{"example/session", "example/missing"})
	check(err)
	for _, r := range results {
		if errors.Is(r.Err, client.ErrNotFound) {
			continue
		}
		fmt.Println(r.Record.Key, len(r.Record.Value))
	}
}

func ExampleClient_BatchDelete() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	_, err := c.BatchDelete(ctx, []client.DeleteItem{{Key: "example/a"}, {Key: "example/b"}})
	var failed *client.BatchError
	if errors.As(err, &failed) {
		for i, err := range failed.Items {
			fmt.Println("item", i, err)
		}
	}
}

func ExampleClient_List() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	page, err := c.List(ctx, client.WithPrefix("example/"), client.WithLimit(10), client.KeysOnly())
	check(err)
	for _, rec := range page.Records {
		fmt.Println(rec.Key, rec.Size)
	}
	if page.Token != "" {
		_, err = c.List(ctx, client.WithPrefix("example/"), client.WithLimit(10), client.KeysOnly(), client.After(page.Token))
		check(err)
	}
}

func ExampleClient_Scan() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	for rec, err := range c.Scan(ctx, client.WithPrefix("example/"), client.WithTagFilter(map[string]string{"kind": "session"})) {
		check(err)
		fmt.Println(rec.Key, string(rec.Value))
	}
}

func ExampleClient_Count() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	n, err := c.Count(ctx, client.WithPrefix("example/"))
	check(err)
	fmt.Println(n)
}

func ExampleClient_PutReader() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	value := strings.NewReader(strings.Repeat("large ", 1<<20))
	_, err := c.PutReader(ctx, "example/large", value, value.Size(), client.WithContentType("text/plain"))
	check(err)
}

func ExampleClient_GetReader() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	v, err := c.GetReader(ctx, "example/large")
	if errors.Is(err, client.ErrNotFound) {
		return
	}
	check(err)
	defer func() { check(v.Close()) }()
	n, err := io.Copy(io.Discard, v) // the checksum is verified at the end
	check(err)
	fmt.Println(n, v.Record.ContentType)
}

func ExampleClient_Status() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	s, err := c.Status(ctx)
	check(err)
	fmt.Println(s.GetClusterName(), s.GetVersion(), s.GetReady())
}

func ExampleClient_StatusOf() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	nodes, err := c.Nodes(ctx)
	check(err)
	for _, n := range nodes {
		s, err := c.StatusOf(ctx, n.GetId())
		if err != nil {
			fmt.Println(n.GetName(), err)
			continue
		}
		fmt.Println(n.GetName(), s.GetReady())
	}
}

func ExampleClient_Nodes() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	nodes, err := c.Nodes(ctx)
	check(err)
	for _, n := range nodes {
		fmt.Println(n.GetName(), n.GetGrpc(), n.GetZone())
	}
}

func ExampleClient_Digest() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	d, err := c.Digest(ctx)
	check(err)
	fmt.Println("replicas agree:", d.GetEqual())
}

func ExampleClient_CreateNamespace() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	_, err := c.CreateNamespace(ctx, "example")
	if err != nil && !errors.Is(err, client.ErrNamespaceExists) {
		check(err)
	}
	_, err = c.Put(ctx, "k", []byte("v"), client.InNamespace("example"))
	check(err)
}

func ExampleClient_ListNamespaces() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	all, err := c.ListNamespaces(ctx)
	check(err)
	for _, ns := range all {
		fmt.Println(ns.GetName(), ns.GetState())
	}
}

// Deleting a namespace is a job: ask until it is done.
func ExampleClient_DeleteNamespace() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	_, err := c.CreateNamespace(ctx, "example-temp")
	if err != nil && !errors.Is(err, client.ErrNamespaceExists) {
		check(err)
	}
	job, err := c.DeleteNamespace(ctx, "example-temp")
	check(err)
	for tick := time.NewTicker(100 * time.Millisecond); job.GetState() == "running"; <-tick.C {
		job, err = c.DescribeJob(ctx, job.GetId())
		check(err)
	}
	fmt.Println(job.GetState())
}

// A write whose answer was lost may have happened: look before doing it again.
func ExampleError_unknownOutcome() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	_, err := c.Put(ctx, "example/order", []byte("placed"), client.IfAbsent())
	if errors.Is(err, client.ErrUnknownOutcome) {
		rec, err := c.Get(ctx, "example/order")
		fmt.Println("written:", err == nil && string(rec.Value) == "placed")
	}
}

// Compare, then write or read: one request, all or nothing.
func ExampleClient_Txn() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	res, err := c.Txn(ctx).
		If(client.Key("{42}stock").Absent()).
		Then(client.OpPut("{42}stock", []byte("10")), client.OpDelete("{42}hold")).
		Else(client.OpGet("{42}stock")).
		Commit()
	check(err)
	if res.Succeeded {
		fmt.Println("stocked at revision", res.Revision)
		return
	}
	rec, err := res.Get(0)
	check(err)
	fmt.Println("there are", string(rec.Value))
}

// Read, decide and write as if nobody else was there.
func ExampleClient_Transact() {
	ctx := context.Background()
	c := connect(ctx)
	defer func() { check(c.Close()) }()
	err := c.Transact(ctx, func(tx *client.Tx) error {
		rec, err := tx.Get("{42}visits")
		if err != nil && !errors.Is(err, client.ErrNotFound) {
			return err
		}
		tx.Put("{42}visits", append(rec.Value, '+'))
		tx.Put("{42}last", []byte("now"))
		return nil
	})
	check(err)
}
