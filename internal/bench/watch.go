package bench

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	hdr "github.com/HdrHistogram/hdrhistogram-go"
	"github.com/spf13/cobra"

	"kvstore/client"
	"kvstore/internal/ctl/target"
)

// watchConfig is a run of one or more writers beside watchers.
type watchConfig struct {
	Watchers  int           `json:"watchers"`
	Writers   int           `json:"writers"`
	Idle      int           `json:"idle_watches"`
	OwnStream bool          `json:"own_streams"`
	On        string        `json:"on"`
	Rate      float64       `json:"rate"`
	ValueSize int           `json:"value_size"`
	Duration  time.Duration `json:"duration_ns"`
	target    target.Flags
}

// watchResult is what was measured. Delivery is from the moment before a put
// begins until a watcher has its event, on the clock of this process.
type watchResult struct {
	Config   watchConfig `json:"config"`
	Seconds  float64     `json:"seconds"`
	Puts     int64       `json:"puts"`
	Failed   int64       `json:"puts_failed"`
	Events   int64       `json:"events"`
	Missing  int64       `json:"events_missing"`
	PutRate  float64     `json:"puts_per_second"`
	Rate     float64     `json:"events_per_second"`
	Put      Latency     `json:"put_latency"`
	Delivery Latency     `json:"delivery_latency"`
}

// What is watched: one key, its {hash part} as a prefix (both one group), or a
// prefix over all groups.
const (
	onKey    = "key"
	onHash   = "hash"
	onPrefix = "prefix"
)

func watchCommand(out io.Writer) *cobra.Command {
	c := watchConfig{target: target.Default()}
	var output string
	cmd := &cobra.Command{
		Use: "watch", Short: "Measure how fast changes reach watchers", Args: usageArgs(cobra.NoArgs),
		Example: "  kvbench watch --watchers 1000 --rate 50\n  kvbench watch --watchers 1000 --own-streams --on prefix -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(output); err != nil {
				return target.UsageError{Err: err}
			}
			res, err := c.run(cmd.Context())
			if err != nil {
				return err
			}
			return res.show(out, output)
		},
	}
	f := cmd.Flags()
	f.IntVar(&c.Watchers, "watchers", 1000, "watches that see every put")
	f.IntVar(&c.Writers, "writers", 1, "goroutines that put, one after the other each")
	f.IntVar(&c.Idle, "idle", 0, "more watches, each of a key that nobody writes")
	f.BoolVar(&c.OwnStream, "own-streams", false, "a stream per watcher instead of one for all")
	f.StringVar(&c.On, "on", onKey, "what is watched: key, hash (a prefix in one group) or prefix (over all groups)")
	f.Float64Var(&c.Rate, "rate", 0, "puts per second of each writer; 0: as fast as they are answered")
	f.IntVar(&c.ValueSize, "value-size", 256, "bytes of a value, at least 8")
	f.DurationVarP(&c.Duration, "duration", "d", 10*time.Second, "how long")
	f.StringVarP(&output, "output", "o", "text", "text or json")
	c.target.Add(f)
	return cmd
}

func (c *watchConfig) check(output string) error {
	var problems []error
	if c.Watchers < 1 || c.Writers < 1 || c.Idle < 0 || c.Rate < 0 || c.Duration <= 0 || c.ValueSize < 8 {
		problems = append(problems, errors.New("--watchers and --writers want 1 or more, --idle and --rate 0 or more, --value-size 8 or more"))
	}
	if c.On != onKey && c.On != onHash && c.On != onPrefix {
		problems = append(problems, fmt.Errorf("--on %q: want key, hash or prefix", c.On))
	}
	if output != "text" && output != "json" {
		problems = append(problems, fmt.Errorf("--output %q: want text or json", output))
	}
	return errors.Join(problems...)
}

// watchRun is one measurement.
type watchRun struct {
	c       *watchConfig
	store   *client.Client
	started time.Time
	events  atomic.Int64
	failed  atomic.Int64
	puts    atomic.Int64
	wg      sync.WaitGroup
	mu      sync.Mutex
	put     *hdr.Histogram // guarded by mu
	deliver [deliveries]delivery
	errs    chan error
}

// deliveries are the histograms that all watchers share: few, since they are large
// for a cache, and more than one, since watchers run at the same time.
const deliveries = 4

type delivery struct {
	mu   sync.Mutex
	took *hdr.Histogram // guarded by mu
}

func (c *watchConfig) run(ctx context.Context) (*watchResult, error) {
	cfg, _, err := c.target.Config("kvbench")
	if err != nil {
		return nil, err
	}
	store, err := client.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer func() { _ = store.Close() }() // returns nil
	r := &watchRun{c: c, store: store, started: time.Now(), put: newHistogram(), errs: make(chan error, c.Watchers+c.Idle)}
	for i := range r.deliver {
		r.deliver[i].took = newHistogram()
	}
	watching, stop := context.WithCancel(ctx)
	if err := r.watchAll(watching); err != nil {
		stop()
		r.wg.Wait()
		return nil, err
	}
	begin := time.Now()
	r.write(ctx)
	took := time.Since(begin)
	r.drain(ctx)
	stop()
	r.wg.Wait()
	return r.result(took), nil
}

// watchAll opens all watches and waits until each is told where it begins.
func (r *watchRun) watchAll(ctx context.Context) error {
	open := make(chan struct{}, r.c.Watchers+r.c.Idle)
	for i := range r.c.Idle {
		opts := []client.WatchOption{client.OnKey(fmt.Sprintf("watch/idle/%d", i))}
		r.wg.Go(func() { r.watch(ctx, opts, open, &r.deliver[0]) })
	}
	for i := range r.c.Watchers {
		opts := []client.WatchOption{r.pattern()}
		if r.c.OwnStream {
			opts = append(opts, client.OwnStream())
		}
		r.wg.Go(func() { r.watch(ctx, opts, open, &r.deliver[i%deliveries]) })
	}
	for range r.c.Watchers + r.c.Idle {
		select {
		case <-open:
		case err := <-r.errs:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (r *watchRun) pattern() client.WatchOption {
	switch r.c.On {
	case onHash:
		return client.WithPrefix("watch/{hot}")
	case onPrefix:
		return client.WithPrefix("watch/hot/")
	}
	return client.OnKey("watch/hot")
}

func (r *watchRun) key(writer, n int) string {
	switch r.c.On {
	case onHash:
		return fmt.Sprintf("watch/{hot}%d", writer*1000+n%1000)
	case onPrefix:
		return fmt.Sprintf("watch/hot/%d", writer*1000+n%1000)
	}
	return "watch/hot"
}

func (r *watchRun) watch(ctx context.Context, opts []client.WatchOption, open chan<- struct{}, d *delivery) {
	first := true
	for u, err := range r.store.Watch(ctx, opts...) {
		if err != nil {
			if ctx.Err() == nil {
				r.errs <- err
			}
			return
		}
		if first {
			first = false
			open <- struct{}{}
		}
		if len(u.Events) > 0 {
			d.add(time.Since(r.started), u.Events)
			r.events.Add(int64(len(u.Events)))
		}
	}
}

// add records events that came now.
func (d *delivery) add(now time.Duration, events []client.Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range events {
		if v := events[i].Record.Value; len(v) >= 8 {
			_ = d.took.RecordValue(int64(now) - int64(binary.BigEndian.Uint64(v))) // out of range counts nowhere
		}
	}
}

// write runs the writers for the duration.
func (r *watchRun) write(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.c.Duration)
	defer cancel()
	var writers sync.WaitGroup
	for i := range r.c.Writers {
		writers.Go(func() { r.writer(ctx, i) })
	}
	writers.Wait()
}

func (r *watchRun) writer(ctx context.Context, writer int) {
	own := newHistogram()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	begin := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		if r.c.Rate > 0 {
			due := begin.Add(time.Duration(float64(n) / r.c.Rate * float64(time.Second)))
			if !wait(ctx, timer, time.Until(due)) {
				break
			}
		}
		value := make([]byte, r.c.ValueSize)
		at := time.Since(r.started)
		binary.BigEndian.PutUint64(value, uint64(at))
		if _, err := r.store.Put(context.WithoutCancel(ctx), r.key(writer, n), value); err != nil {
			r.failed.Add(1)
			continue
		}
		r.puts.Add(1)
		_ = own.RecordValue(int64(time.Since(r.started) - at)) // as in watch
	}
	r.mu.Lock()
	r.put.Merge(own)
	r.mu.Unlock()
}

// drain waits for what is on its way.
func (r *watchRun) drain(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	want := r.puts.Load() * int64(r.c.Watchers)
	for deadline := time.Now().Add(10 * time.Second); r.events.Load() < want && time.Now().Before(deadline); {
		if !wait(ctx, timer, 10*time.Millisecond) {
			return
		}
	}
}

func (r *watchRun) result(took time.Duration) *watchResult {
	all := newHistogram()
	for i := range r.deliver {
		all.Merge(r.deliver[i].took)
	}
	res := &watchResult{Config: *r.c, Seconds: took.Seconds(), Puts: r.puts.Load(), Failed: r.failed.Load(), Events: r.events.Load(),
		Put: summarize(r.put), Delivery: summarize(all)}
	res.Missing = max(0, res.Puts*int64(r.c.Watchers)-res.Events)
	res.PutRate, res.Rate = float64(res.Puts)/took.Seconds(), float64(res.Events)/took.Seconds()
	return res
}

func (res *watchResult) show(out io.Writer, format string) error {
	if format == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(res)
	}
	_, err := fmt.Fprintf(out, "%d watchers (%d idle watches), %d writers, %.1f s\nputs      %s/s  p50 %.2f ms  p99 %.2f ms  failed %d\nevents    %s/s  p50 %.2f ms  p99 %.2f ms  max %.2f ms  missing %d\n",
		res.Config.Watchers, res.Config.Idle, res.Config.Writers, res.Seconds,
		amount(res.PutRate), res.Put.P50, res.Put.P99, res.Failed,
		amount(res.Rate), res.Delivery.P50, res.Delivery.P99, res.Delivery.Max, res.Missing)
	return err
}
