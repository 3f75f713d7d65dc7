// Package facts says what measured figures depend on: the machine and the
// versions of what ran.
package facts

import (
	"debug/buildinfo"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Machine says what the figures depend on, and nothing that names the host.
// dir is on the file system that matters.
func Machine(dir string) map[string]string {
	m := map[string]string{"cpus": fmt.Sprint(runtime.NumCPU()), "cpu": field("/proc/cpuinfo", "model name"), "os": runtime.GOOS + "/" + runtime.GOARCH}
	var kb int64
	if _, err := fmt.Sscanf(field("/proc/meminfo", "MemTotal"), "%d kB", &kb); err == nil {
		m["memory"] = fmt.Sprintf("%.0f GB", float64(kb)/(1<<20))
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
		m["kernel"] = "Linux " + version
	}
	var fs syscall.Statfs_t
	if syscall.Statfs(dir, &fs) == nil {
		m["filesystem"] = filesystem(fs.Type)
	}
	return m
}

func field(file, name string) string {
	text, _ := os.ReadFile(file) // an unknown fact is empty
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// filesystem names the usual magic numbers of statfs(2).
func filesystem(magic int64) string {
	names := map[int64]string{0xef53: "ext4", 0x58465342: "xfs", 0x9123683e: "btrfs", 0x01021994: "tmpfs (nothing is durable)", 0x794c7630: "overlayfs", 0x2fc12fc1: "zfs"}
	if name, ok := names[magic]; ok {
		return name
	}
	return fmt.Sprintf("file system %#x", magic)
}

// Versions come from the binaries in bin themselves; what is not there is
// unknown.
func Versions(bin string) map[string]string {
	v := map[string]string{"kvstore": kvstore(filepath.Join(bin, "kvstore")), "etcd": "unknown", "grpc": "unknown", "go": runtime.Version()}
	if info, err := buildinfo.ReadFile(filepath.Join(bin, "etcd")); err == nil {
		for _, d := range info.Deps {
			switch d.Path {
			case "go.etcd.io/etcd/server/v3":
				v["etcd"] = d.Version
			case "google.golang.org/grpc":
				v["grpc"] = d.Version
			}
		}
	}
	if out, err := exec.Command(filepath.Join(bin, "etcd"), "--version").Output(); err == nil {
		first, _, _ := strings.Cut(string(out), "\n")
		v["etcd_says"] = strings.TrimSpace(first)
	}
	return v
}

// kvstore is the commit of a binary, and whether files were changed after it.
func kvstore(exe string) string {
	info, err := buildinfo.ReadFile(exe)
	if err != nil {
		return "unknown"
	}
	version, changed := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			version = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = " with changes"
		}
	}
	return version + changed
}
