package bench

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// slow is a driver whose puts take d of (synthetic) time.
func slow(d time.Duration) fakeDriver {
	return fakeDriver{&fake{put: func(context.Context) error {
		<-time.After(d)
		return nil
	}}}
}

func openLoop(clients int, rate float64) *Config {
	cfg := Default()
	cfg.Clients, cfg.Rate, cfg.Warmup, cfg.Duration = clients, rate, 2*time.Second, 10*time.Second
	return &cfg
}

func TestOpenLoopKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := Run(t.Context(), openLoop(4, 100), slow(5*time.Millisecond), nil)
		if r.Operations != 1000 || r.Open.Late != 0 || r.Open.Missed != 0 || r.Latency.Max > 6 {
			t.Errorf("%d operations, max %.1f ms, %+v", r.Operations, r.Latency.Max, r.Open)
		}
	})
}

// TestOverloadedOpenLoopIsBounded: a store that does a tenth of the rate. The
// run ends in time, latency counts from when operations were due, what did not
// start is counted, and the warm-up's backlog is not the measurement's.
func TestOverloadedOpenLoopIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := Run(t.Context(), openLoop(1, 100), slow(100*time.Millisecond), nil)
		if took := time.Since(begin); took > 12*time.Second+100*time.Millisecond {
			t.Errorf("took %s", took)
		}
		if r.Operations < 99 || r.Operations > 101 || r.Operations+r.Open.Missed != 1000 {
			t.Errorf("%d operations, %+v", r.Operations, r.Open)
		}
		if r.Open.Late < 97 || r.Open.Target != 100 || r.Open.Achieved > 11 {
			t.Errorf("%+v", r.Open)
		}
		// Operation n was due at 10n ms and ended at 100(n+1) ms.
		if l := r.Latency; l.Max < 8900 || l.Max > 9200 || l.P50 < 4300 || l.P50 > 4800 {
			t.Errorf("p50 %.0f ms, max %.0f ms", l.P50, l.Max)
		}
	})
}

func TestTimelineHasNoSliver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := openLoop(1, 0)
		r := Run(t.Context(), cfg, slow(70*time.Millisecond), nil)
		if n := len(r.Timeline); n != 10 || r.Timeline[9].Seconds != 10 {
			t.Errorf("%d points: %+v", n, r.Timeline)
		}
	})
}
