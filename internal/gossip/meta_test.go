package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
)

var slogDiscard = slog.New(slog.DiscardHandler)

func goodMeta() Meta {
	return Meta{
		Name: "node-1", Zone: "zone-a", Version: "v1.2.3 (abc)", Gossip: "10.0.0.1:7947", Peer: "host.example:7946", GRPC: "[::1]:8085", HTTP: "10.0.0.1:8080",
		Started: 1_700_000_000_123, Health: HealthReady, Load: 100, Leads: 17, Epoch: 1 << 60,
	}
}

func TestMetaRoundTrip(t *testing.T) {
	for _, m := range []Meta{goodMeta(), {Name: "n", Gossip: "a:1", Peer: "b:2"}, {Name: "w", Gossip: "a:1", Peer: "b:2", Witness: true}} {
		b, err := m.encode(42)
		if err != nil {
			t.Fatal(err)
		}
		for _, more := range []string{"", "a field of a later version"} {
			got, cluster, err := decodeMeta(append(b, more...))
			if err != nil || got != m || cluster != 42 {
				t.Errorf("%+v, %d, %v", got, cluster, err)
			}
		}
	}
}

// Every field is judged, on both sides.
func TestMetaIsJudged(t *testing.T) {
	long := strings.Repeat("x", 300)
	for name, spoil := range map[string]func(*Meta){
		"no name": func(m *Meta) { m.Name = "" }, "name": func(m *Meta) { m.Name = "a b" }, "long name": func(m *Meta) { m.Name = long },
		"zone": func(m *Meta) { m.Zone = "\x00" }, "version": func(m *Meta) { m.Version = "\n" }, "long version": func(m *Meta) { m.Version = long },
		"no gossip": func(m *Meta) { m.Gossip = "" }, "no peer": func(m *Meta) { m.Peer = "" }, "no port": func(m *Meta) { m.Gossip = "a:0" },
		"port": func(m *Meta) { m.HTTP = "a:99999" }, "no host": func(m *Meta) { m.GRPC = ":80" }, "long address": func(m *Meta) { m.HTTP = long + ":1" },
		"load": func(m *Meta) { m.Load = 101 }, "leads": func(m *Meta) { m.Leads = maxLeads + 1 }, "started": func(m *Meta) { m.Started = -1 },
	} {
		m := goodMeta()
		spoil(&m)
		if _, err := m.encode(1); err == nil {
			t.Errorf("%s is encoded", name)
		}
		if b := m.append(1); len(b) <= memberlist.MetaMaxSize {
			if _, _, err := decodeMeta(b); err == nil {
				t.Errorf("%s is decoded", name)
			}
		}
	}
	b, _ := goodMeta().encode(1)
	for n := range b[:len(b)-1] { // an earlier version does not send the last byte
		if _, _, err := decodeMeta(b[:n]); err == nil {
			t.Errorf("%d of %d bytes are decoded", n, len(b))
		}
	}
}

// What does not fit is left out as far as it may be.
func TestMetaTooLong(t *testing.T) {
	host := strings.Repeat("h", 150)
	m := goodMeta()
	m.Gossip, m.Peer, m.GRPC, m.HTTP = host+":1", host+":2", host+":3", host+":4"
	b, err := m.encode(1)
	if err != nil || len(b) > memberlist.MetaMaxSize {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if got, _, err := decodeMeta(b); err != nil || got.HTTP != "" || got.GRPC != "" || got.Peer != m.Peer {
		t.Errorf("%+v, %v", got, err)
	}
	m.Gossip, m.Peer = strings.Repeat("h", 250)+":1", strings.Repeat("p", 250)+":1"
	if _, err := m.encode(1); err == nil || !strings.Contains(err.Error(), "512") {
		t.Errorf("got %v", err)
	}
}

func TestHealthNames(t *testing.T) {
	for h, want := range map[Health]string{HealthUnknown: "unknown", HealthReady: "ready", HealthGroups: "groups do not answer", 200: "not ready (200)"} {
		if got := fmt.Sprint(h); got != want {
			t.Errorf("%d is %s", h, got)
		}
	}
}

// FuzzMeta: whatever comes is refused or is a Meta that reads back the same.
func FuzzMeta(f *testing.F) {
	good, _ := goodMeta().encode(7)
	f.Add(good)
	f.Add([]byte{})
	f.Add([]byte{metaVersion})
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	small, _ := Meta{Name: "n", Gossip: "a:1", Peer: "b:2"}.encode(0)
	f.Add(small)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, cluster, err := decodeMeta(b)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		again, err := m.encode(cluster)
		if err != nil {
			t.Fatalf("%+v was decoded and cannot be encoded: %v", m, err)
		}
		got, c, err := decodeMeta(again)
		if err != nil || got != m || c != cluster {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
	})
}
