package client

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"google.golang.org/protobuf/proto"

	api "kvstore/api/kvstore/v1"
)

func benchClient(b *testing.B, nodes, valueBytes int) *Client {
	b.Helper()
	c, err := New(context.Background(), Config{Endpoints: startNullNodes(b, nodes, valueBytes), Token: ""})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func benchKeys() []string {
	keys := make([]string, 1024)
	for i := range keys {
		keys[i] = "user:" + strconv.Itoa(i) + ":profile"
	}
	return keys
}

// runClients runs op on a number of goroutines and reports what a frame held.
func runClients(b *testing.B, c *Client, goroutines int, op func(key string) error) {
	keys := benchKeys()
	per := max(b.N/goroutines, 1)
	errs := make(chan error, goroutines)
	before := c.Stats()
	b.ReportAllocs()
	b.ResetTimer()
	for g := range goroutines {
		go func() {
			for i := range per {
				if err := op(keys[(g*31+i)%len(keys)]); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range goroutines {
		if err := <-errs; err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	after := c.Stats()
	b.ReportMetric(float64(after.Operations-before.Operations)/float64(max(after.Frames-before.Frames, 1)), "ops/frame")
	b.ReportMetric(float64(after.Operations-before.Operations)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkPut(b *testing.B) {
	value := make([]byte, 256)
	for _, goroutines := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("clients=%d", goroutines), func(b *testing.B) {
			c := benchClient(b, 3, 256)
			ctx := context.Background()
			runClients(b, c, goroutines, func(key string) error {
				_, err := c.Put(ctx, key, value)
				return err
			})
		})
	}
}

func BenchmarkGet(b *testing.B) {
	for _, goroutines := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("clients=%d", goroutines), func(b *testing.B) {
			c := benchClient(b, 3, 256)
			ctx := context.Background()
			runClients(b, c, goroutines, func(key string) error {
				_, err := c.Get(ctx, key)
				return err
			})
		})
	}
}

func BenchmarkBatch(b *testing.B) {
	for _, goroutines := range []int{1, 64} {
		c := benchClient(b, 3, 256)
		ctx := context.Background()
		var keys []string
		var items []PutItem
		for i := range 10 {
			keys = append(keys, fmt.Sprintf("user:%d:profile", i*7919))
			items = append(items, PutItem{Key: keys[i], Value: make([]byte, 256)})
		}
		b.Run(fmt.Sprintf("get/clients=%d", goroutines), func(b *testing.B) {
			runClients(b, c, goroutines, func(string) error {
				_, err := c.BatchGet(ctx, keys)
				return err
			})
		})
		b.Run(fmt.Sprintf("put/clients=%d", goroutines), func(b *testing.B) {
			runClients(b, c, goroutines, func(string) error {
				_, err := c.BatchPut(ctx, items)
				return err
			})
		})
	}
}

func BenchmarkEncodePut(b *testing.B) {
	item := PutItem{Key: "user:1:profile", Value: make([]byte, 256)}
	b.Run("hand", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			buf = appendPut(buf[:0], fieldOpPut, "default", &item)
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		var buf []byte
		for b.Loop() {
			sum := itemChecksum(&item)
			op := &api.PipelineOp{Op: &api.PipelineOp_Put{Put: &api.PutRequest{Namespace: "default", Key: item.Key, Value: item.Value, Checksum: &sum}}}
			buf, _ = proto.MarshalOptions{}.MarshalAppend(buf[:0], op)
		}
	})
}

func BenchmarkDecodeGet(b *testing.B) {
	answer := nullAnswers(b, 256)[fieldOpGet]
	b.Run("hand", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			body, err := decodeResult(answer, fieldOpGet)
			if err != nil {
				b.Fatal(err)
			}
			var r Record
			if err := decodeGet(body, "key", &r); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("generated", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var r api.PipelineResult
			if err := proto.Unmarshal(answer, &r); err != nil {
				b.Fatal(err)
			}
		}
	})
}
