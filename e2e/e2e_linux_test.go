// Package e2e tests bin/lsub as a user runs it: real distros in the real VM.
// It runs where LSUB_TEST_VM=1 is set ('./task test:vm' sets it), because it
// takes minutes and builds Debian root file systems over the network. With
// LSUB_TEST_TIMES=1, it logs how long each command takes.
//
// One lsub home serves most tests, so that the VM boots once. A test that changes its VM has
// its own home.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// slow bounds each lsub command: none may hang.
const slow = 10 * time.Minute

var shared struct {
	sync.Once
	*host
	err error
}

func TestMain(m *testing.M) {
	if os.Getenv("LSUB_TEST_VM") != "1" {
		fmt.Println("e2e: skipped: it boots a VM; set LSUB_TEST_VM=1 to run it")
		return
	}
	flag.Set("test.parallel", "1000") // the lanes say how many run
	code := m.Run()
	if shared.host != nil {
		shared.end()
	}
	for _, h := range templates {
		os.RemoveAll(h.dir)
	}
	os.Exit(code)
}

// lane is a place for one test at a time. Two tests run side by side, because each waits a lot:
// one with the VM that many share, and one with a VM of its own.
type lane struct{ sync.Mutex }

var (
	sharedLane, ownLane lane
	inLane              sync.Map // names of the tests that are in one
)

// enter makes the test wait for its turn in the lane. A test stays in the lane that it has
// entered first; its subtests are in it too.
func (l *lane) enter(t *testing.T) {
	t.Helper()
	name, _, isSubtest := strings.Cut(t.Name(), "/")
	if _, entered := inLane.LoadOrStore(name, true); entered || isSubtest {
		return
	}
	t.Parallel()
	l.Lock()
	start := time.Now()
	t.Cleanup(func() {
		t.Logf("%v without the wait for its turn", time.Since(start).Round(time.Millisecond))
		inLane.Delete(name)
		l.Unlock()
	})
}

// host is a user's view: an lsub home, and the user.
type host struct {
	bin  string
	dir  string // LSUB_HOME is below it
	arch string // of the VM's processor, as GOARCH
	env  []string
	cred *syscall.Credential // nil: the user of the test
	in   []string            // a command that runs other commands on the host, see ownHost
}

// newHost returns a host with nothing installed. The cache is the user's own,
// so that root file systems are built once per machine.
func newHost(dir string) (*host, error) {
	bin, err := filepath.Abs("../bin/lsub")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(bin); err != nil {
		return nil, fmt.Errorf("%w: './task build' makes it", err)
	}
	return &host{bin: bin, dir: dir, arch: runtime.GOARCH, env: append(os.Environ(), "LSUB_HOME="+filepath.Join(dir, "home"))}, nil
}

// fresh returns a host for one test. It ends with the test.
func fresh(t *testing.T) *host {
	t.Helper()
	ownLane.enter(t)
	h, err := newHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			h.dump(t)
		}
		h.end()
	})
	return h
}

// toolsImage is a Debian image with the tools of several tests. They share one image, because
// each build takes a minute on a slow machine.
const toolsImage = "debian?include=bind9-dnsutils,ca-certificates,curl,git,iperf3,python3-minimal,libpython3-stdlib"

// templates are hosts by image. Each has one distro, called debian, which ran once.
var (
	templates = map[string]*host{}
	copying   sync.Mutex // guards templates
)

// freshWith returns a host for one test, with one distro, called debian. It copies a
// template's disk: an import takes half a minute on a slow machine.
func freshWith(t *testing.T, image string) *host {
	t.Helper()
	ownLane.enter(t)
	copying.Lock()
	defer copying.Unlock()
	if templates[image] == nil {
		dir, err := os.MkdirTemp("", "lsub-template-")
		if err != nil {
			t.Fatal(err)
		}
		h, err := newHost(dir)
		if err != nil {
			t.Fatal(err)
		}
		h.ok(t, "install", image, "--name", "debian")
		h.sh(t, "debian", "systemctl is-system-running --wait || systemctl --failed")
		h.ok(t, "shutdown")
		templates[image] = h
	}
	h := fresh(t)
	from := filepath.Join(templates[image].dir, "home")
	if out, err := exec.Command("cp", "-a", "--sparse=always", from, filepath.Join(h.dir, "home")).CombinedOutput(); err != nil {
		t.Fatalf("copy the template: %v: %s", err, out)
	}
	return h
}

// debian returns the shared host, with the distro "debian" installed.
func debian(t *testing.T) *host {
	t.Helper()
	sharedLane.enter(t)
	shared.Do(func() {
		dir, err := os.MkdirTemp("", "lsub-e2e-")
		if err == nil {
			shared.host, err = newHost(dir)
		}
		if shared.err = err; err != nil {
			return
		}
		if r := shared.run("install", "debian"); r.code != 0 {
			shared.err = fmt.Errorf("install debian: %s", r)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			shared.dump(t)
		}
	})
	return shared.host
}

// end ends the host's VM and removes its files.
func (h *host) end() {
	h.run("shutdown", "--force")
	os.RemoveAll(h.dir)
}

// dump logs information to explain a failed test.
func (h *host) dump(t *testing.T) {
	r := h.run("logs")
	lines := strings.Split(r.out, "\n")
	t.Logf("lsub logs (the end):\n%s", strings.Join(lines[max(0, len(lines)-60):], "\n"))
}

// result is the result of a command.
type result struct {
	args     []string
	out, err string
	code     int
}

func (r result) String() string {
	return fmt.Sprintf("lsub %s: exit %d\nstdout: %s\nstderr: %s", strings.Join(r.args, " "), r.code, r.out, r.err)
}

func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	words := append(append(append([]string(nil), h.in...), h.bin), args...)
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = h.env
	cmd.Dir = "/"
	if h.cred != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.cred}
	}
	return cmd
}

func (h *host) run(args ...string) result { return h.runWith(nil, args...) }

func (h *host) runWith(stdin io.Reader, args ...string) result {
	ctx, cancel := context.WithTimeout(context.Background(), slow)
	defer cancel()
	cmd := h.command(ctx, args...)
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &errOut
	err := cmd.Run()
	r := result{args: args, out: out.String(), err: errOut.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.code = exit.ExitCode()
	case err != nil:
		r.code, r.err = -1, err.Error()
	}
	return r
}

// ok runs lsub, and fails the test if lsub fails. It returns stdout without surrounding white
// space.
func (h *host) ok(t *testing.T, args ...string) string {
	t.Helper()
	begin := time.Now()
	r := h.run(args...)
	if os.Getenv("LSUB_TEST_TIMES") != "" {
		t.Logf("%.1f s: lsub %.200s", time.Since(begin).Seconds(), strings.Join(args, " "))
	}
	if r.code != 0 {
		t.Fatal(r)
	}
	return strings.TrimSpace(r.out)
}

// sh runs a shell script, which must succeed, as root in a distro.
func (h *host) sh(t *testing.T, distro, script string) string {
	t.Helper()
	return h.ok(t, "exec", "-u", "root", distro, "--", "sh", "-ec", script)
}

// fails runs lsub, which must fail with the code and print each string of what.
func (h *host) fails(t *testing.T, code int, what []string, args ...string) result {
	t.Helper()
	r := h.run(args...)
	if r.code != code {
		t.Errorf("want exit %d: %s", code, r)
	}
	for _, w := range what {
		if !strings.Contains(r.err, w) {
			t.Errorf("stderr does not say %q: %s", w, r)
		}
	}
	return r
}
