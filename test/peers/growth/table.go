package main

import (
	"fmt"
	"strings"

	"kvstore/test/peers/experiment"
	"kvstore/test/peers/figures"
)

// Tables is the Markdown output.
func (r *results) Tables() string {
	g := r.settings
	head := fmt.Sprintf("Sizes: %d rounds of %s after %s of warm-up, %d clients, uniform over all keys; medians. Quiet: for %s all nodes together used less than %g CPUs and wrote less than %.1f MB/s; waited for at most %s.\n",
		g.Rounds, g.Duration, g.Warmup, g.Clients, g.Quiet.Window, g.Quiet.CPUs, float64(g.Quiet.Written)/(1<<20), g.Quiet.Limit)
	if r.Stopped != "" {
		head += fmt.Sprintf("Loading stopped before %s keys: %s.\n", keys(g.Keys), r.Stopped)
	}
	parts := []string{head, r.rateTable(), r.costTable(),
		"Memory is the most that one node had resident from load to restart. Disk is allocated blocks, the log's prepared segments included. Written is what the disk was given, by everybody on the machine; in brackets write_bytes of the nodes, which counts whole folios of the page cache. Amplification is of three nodes by what users wrote and what they store: with three copies, 3 is the least.\n"}
	if r.Overwrite != nil {
		parts = append(parts, r.overwriteHead(), r.overwriteTable())
	}
	return strings.Join(append(parts, experiment.Verdicts(r.Verdicts)), "\n")
}

func (r *results) rateTable() string {
	t := experiment.NewTable("keys", "load keys/s", "put /s, p99 ms", "get /s, p99 ms", "quiet after s", "put right after load", "get right after load", "errors")
	for _, z := range r.Sizes {
		quiet := fmt.Sprintf("%.0f", z.Settled.Seconds)
		if !z.Settled.Quiet {
			quiet = "not in " + quiet
		}
		busy := []*experiment.Run{z.Busy.Put, z.Busy.Get}
		t.Row(keys(z.Keys), figures.Thousands(float64(z.Loaded)/max(z.LoadSeconds, 0.001)), pair(rate(z.Put), p99(z.Put)), pair(rate(z.Get), p99(z.Get)), quiet,
			pair(z.Busy.Put.PerSecond, z.Busy.Put.P99), pair(z.Busy.Get.PerSecond, z.Busy.Get.P99),
			experiment.Codes(experiment.ErrorsOf(append(append(busy, z.Put...), z.Get...))))
	}
	return t.String()
}

func pair(perSecond, p99 float64) string {
	return fmt.Sprintf("%s, %.2f", figures.Thousands(perSecond), p99)
}

func (r *results) costTable() string {
	t := experiment.NewTable("keys", "ready after kill -9, s", "first read, s", "anonymous MB", "resident MB", "disk MB of a node", "write amplification (by write_bytes)", "space amplification")
	for _, z := range r.Sizes {
		m := largest(z.Memory)
		device, nodes := z.writeAmplification()
		t.Row(keys(z.Keys), fmt.Sprintf("%.2f", z.Ready), fmt.Sprintf("%.2f", z.FirstRead), experiment.MB(m.Anonymous), experiment.MB(m.Total),
			experiment.MB(sum(z.Disk)/experiment.Nodes), fmt.Sprintf("%s (%.1f)", counted(device), nodes), fmt.Sprintf("%.1f", z.spaceAmplification()))
	}
	return t.String()
}

func (r *results) overwriteHead() string {
	g, p := r.settings, r.Overwrite.Put
	return fmt.Sprintf("%s keys overwritten by %d clients for %s, read by %d gets/s in an open loop: %s puts/s, p99 %.2f ms, longest stall %.0f ms, errors %s.\n",
		keys(g.OverwriteKeys), g.OverwriteClients, g.Overwrite, g.OverwriteReads, figures.Thousands(p.PerSecond), p.P99, r.Overwrite.Stall, experiment.Codes(p.Errors))
}

func (r *results) overwriteTable() string {
	t := experiment.NewTable("from, s", "put /s", "get p50 ms", "get p99 ms", "get longest ms", "anonymous MB", "resident MB", "disk MB of a node", "written MB/s (by write_bytes)", "errors of gets")
	for _, each := range r.Overwrite.Intervals {
		m, mbs := largest(each.Memory), (1<<20)*r.settings.OverwriteInterval.Seconds()
		t.Row(fmt.Sprintf("%.0f", each.Seconds), figures.Thousands(each.Puts), fmt.Sprintf("%.2f", each.Get.P50), fmt.Sprintf("%.2f", each.Get.P99), fmt.Sprintf("%.2f", each.Get.Max),
			experiment.MB(m.Anonymous), experiment.MB(m.Total), experiment.MB(sum(each.Disk)/experiment.Nodes),
			fmt.Sprintf("%s (%.1f)", counted(float64(each.Written.Device)/mbs), float64(each.Written.Nodes)/mbs), experiment.Codes(each.Get.Errors))
	}
	return t.String()
}

// counted writes a figure of the disk, which not every file system has.
func counted(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", v)
}
