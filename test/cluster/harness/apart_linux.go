package harness

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// apartVariable says to a test binary that it runs apart.
const apartVariable = "_KVSTORE_TEST_APART"

// netnsDir is where ip keeps the names of namespaces.
const netnsDir = "/run/netns"

// CanBeApart says whether Apart has what it needs to try.
func CanBeApart() bool {
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return os.Geteuid() == 0
}

// Apart runs the calling test once more, in a process with a network and a view
// of the mounts of its own, and returns false when that ended: the caller
// returns. In that process it returns true. The test fails when it failed there.
//
// Interfaces, firewalls and named namespaces that a test makes there exist only
// there. Names need not be unique, the machine's own network is not touched, and
// nothing is left behind, however the process ends: its nodes die with it, and
// what they were connected by with the last of them.
//
// A test is skipped, or fails with TEST_NO_SKIP=1, where that cannot be done.
func Apart(t testing.TB) bool {
	t.Helper()
	if os.Getenv(apartVariable) != "" {
		hideNames(t)
		return true
	}
	if os.Geteuid() != 0 {
		skip(t, "networks are made by root")
	}
	Need(t, "ip")
	Need(t, "nft")
	needUnshare(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limit := 10 * time.Minute
	if own, ok := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); ok {
		limit = max(limit, own)
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v=true", "-test.count=1", "-test.timeout=" + limit.String()}
	flag.Visit(func(f *flag.Flag) { // those of the package
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	cmd := exec.Command(exe, args...)
	out := &Buffer{}
	cmd.Stdout = out
	if testing.Verbose() { // a long test says how far it is
		cmd.Stdout = io.MultiWriter(out, os.Stderr)
	}
	cmd.Stderr = cmd.Stdout
	cmd.Env = append(os.Environ(), apartVariable+"=1", binariesVariable+"="+filepath.Dir(Binary(t, "kvstore")))
	cmd.SysProcAttr = apart()
	p := StartProcess(t, t.Name()+" apart", cmd)
	code := p.Wait(t, limit+Patience)
	if !testing.Verbose() {
		t.Logf("apart:\n%s", indented(out.String()))
	}
	if code != 0 || !strings.Contains(out.String(), "--- PASS: "+t.Name()) {
		t.Fatalf("apart, it ended with %d", code)
	}
	return false
}

// apart adds the namespaces to the attributes of every process. Mounts made in
// one that was unshared are private to it.
func apart() *syscall.SysProcAttr {
	a := attributes()
	a.Unshareflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS
	return a
}

// needUnshare tries the namespaces, a bridge and a firewall that knows states.
func needUnshare(t testing.TB) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `ip link add probe0 type bridge && ip link add probe1 type veth peer name probe2 && nft -f -`)
	cmd.Stdin = strings.NewReader("table inet t { chain c { type filter hook input priority 0; ct state established accept; }; }")
	cmd.SysProcAttr = apart()
	if out, err := cmd.CombinedOutput(); err != nil {
		skip(t, fmt.Sprintf("no networks of one's own: %v %s", err, out))
	}
}

// hideNames gives this process names of namespaces of its own.
func hideNames(t testing.TB) {
	t.Helper()
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("names", netnsDir, "tmpfs", 0, ""); err != nil {
		t.Fatalf("mount at %s: %v", netnsDir, err)
	}
}

// indented keeps the results of another test binary apart from this one's.
func indented(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ")
}
