package hvtest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

// Harness tells [Conformance] what to test.
type Harness struct {
	// Driver is the driver under test.
	Driver hypervisor.Driver
	// Config returns a VM's configuration whose guest serves the test protocol (package
	// protocol). It is called for each VM; its files last until the test ends. Console, Dir
	// and Disks may be changed afterwards.
	Config func(t *testing.T) hypervisor.Config
	// Kill ends a VM's hypervisor as a crash does, and no other VM's. nil skips the test that
	// needs it.
	Kill func(t *testing.T, vm hypervisor.VM)
	// Skip are the names of tests that cannot pass here, and why.
	Skip map[string]string
	// Only are the names of the tests to run; empty means all.
	Only []string
	// Timeout bounds each step of a guest, such as its boot. It keeps a broken driver from
	// hanging; it is not a performance limit. 0 means two minutes.
	Timeout time.Duration
}

// Conformance checks that a driver keeps the contract of package hypervisor.
// Its subtests can be chosen with go test -run.
func Conformance(t *testing.T, h Harness) {
	if h.Timeout == 0 {
		h.Timeout = 2 * time.Minute
	}
	if err := h.Driver.Check(t.Context()); err != nil {
		t.Fatalf("Check: %v (%s)", err, hint.Of(err))
	}
	if e, ok := h.Driver.(hypervisor.Examiner); ok {
		for _, r := range e.Examine(t.Context()) {
			if r.Err != nil && !r.Optional {
				t.Errorf("Check passes, and Examine wants %s: %v", r.Name, r.Err)
			}
			if r.Name == "" || r.Found == "" && r.Err == nil {
				t.Errorf("a requirement says too little: %+v", r)
			}
		}
	}
	for _, c := range []struct {
		name string
		test func(*testing.T, Harness)
	}{
		{"Boot", testBoot},
		{"DialEcho", testDialEcho},
		{"ListenEcho", testListenEcho},
		{"WaitAfterPoweroff", testWaitAfterPoweroff},
		{"CloseTwice", testCloseTwice},
		{"CloseUnblocksWait", testCloseUnblocksWait},
		{"DialAfterClose", testDialAfterClose},
		{"StartCancelled", testStartCancelled},
		{"ConsoleLog", testConsoleLog},
		{"BadKernel", testBadKernel},
		{"BadDisk", testBadDisk},
		{"NotEnoughMemory", testNotEnoughMemory},
		{"Disks", testDisks},
		{"Frames", testFrames},
		{"Card", testCard},
		{"VSockFrames", testVSockFrames},
		{"Shares", testShares},
		{"Nested", testNested},
		{"Pause", testPause},
		{"Balloon", testBalloon},
		{"Save", testSave},
		{"TwoVMs", testTwoVMs},
		{"Killed", testKilled},
	} {
		if len(h.Only) > 0 && !slices.Contains(h.Only, c.name) {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			if why, ok := h.Skip[c.name]; ok {
				t.Skip(why)
			}
			c.test(t, h)
		})
	}
}

// Boot starts a VM for the test and returns it when its guest is up, with the stream that the
// guest has opened to [protocol.ReadyPort]. The test's end closes both.
func (h Harness) Boot(t *testing.T, cfg hypervisor.Config) (hypervisor.VM, net.Conn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel() // the VM has to outlive it
	vm, err := h.Driver.Start(ctx, cfg)
	if err != nil {
		t.Fatalf("Start: %v (%s)", err, hint.Of(err))
	}
	t.Cleanup(func() { vm.Close() })
	l, err := vm.Listen(ctx, protocol.ReadyPort)
	if err != nil {
		t.Fatalf("Listen: %v", err)
	}
	defer l.Close()
	var ready net.Conn
	h.Within(t, "the guest to come up", func() { ready, err = l.Accept() })
	if err != nil {
		console, _ := os.ReadFile(cfg.Console)
		t.Fatalf("the guest did not come up: %v; its console:\n%s", err, console)
	}
	t.Cleanup(func() { ready.Close() })
	return vm, ready
}

func (h Harness) timeout() time.Duration {
	if h.Timeout == 0 {
		return 2 * time.Minute
	}
	return h.Timeout
}

// Within runs f, and fails the test if that takes longer than the timeout.
func (h Harness) Within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(h.timeout()):
		t.Fatalf("waited %v for %s", h.timeout(), what)
	}
}

// Dial opens a stream to a port of the guest.
func (h Harness) Dial(t *testing.T, vm hypervisor.VM, port uint32) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	c, err := vm.Dial(ctx, port)
	if err != nil {
		t.Fatalf("Dial %d: %v", port, err)
	}
	c.SetDeadline(time.Now().Add(h.timeout()))
	return c
}

// Control runs a command of the guest's control port and returns its answer.
func (h Harness) Control(t *testing.T, vm hypervisor.VM, command string) string {
	t.Helper()
	c := h.Dial(t, vm, protocol.ControlPort)
	defer c.Close()
	if _, err := fmt.Fprintln(c, command); err != nil {
		t.Fatalf("control %q: %v", command, err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("control %q: %v", command, err)
	}
	answer, ok := strings.CutPrefix(strings.TrimSpace(string(b)), "ok")
	if !ok {
		t.Fatalf("control %q: %s", command, b)
	}
	return strings.TrimSpace(answer)
}

// PowerOff makes the guest power off. It does not wait for the VM's end.
func (h Harness) PowerOff(t *testing.T, vm hypervisor.VM) {
	t.Helper()
	c := h.Dial(t, vm, protocol.ControlPort)
	t.Cleanup(func() { c.Close() })
	if _, err := fmt.Fprintln(c, "poweroff"); err != nil {
		t.Fatalf("power off: %v", err)
	}
}

// Echo sends random bytes through a stream whose peer echoes, and closes its own direction.
// It checks that the same bytes come back, and then the end.
func (h Harness) Echo(t *testing.T, c net.Conn, size int) {
	t.Helper()
	c.SetDeadline(time.Now().Add(h.timeout()))
	out := make([]byte, size)
	rand.Read(out)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(out)
		if err == nil {
			half, ok := c.(interface{ CloseWrite() error })
			if !ok {
				err = fmt.Errorf("%T has no CloseWrite", c)
			} else {
				err = half.CloseWrite()
			}
		}
		sent <- err
	}()
	in, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read of the echo: %v after %d of %d bytes", err, len(in), size)
	}
	if err := <-sent; err != nil {
		t.Errorf("write to the echo: %v", err)
	}
	if !bytes.Equal(in, out) {
		t.Errorf("the echo of %d bytes came back changed (%d bytes)", size, len(in))
	}
}

// testConfig is the harness's Config, with junk in the console file.
func (h Harness) testConfig(t *testing.T) hypervisor.Config {
	t.Helper()
	cfg := h.Config(t)
	if err := os.WriteFile(cfg.Console, []byte("of an earlier VM\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// refuse checks that Start fails and leaves nothing in cfg.Dir.
func (h Harness) refuse(t *testing.T, cfg hypervisor.Config) error {
	t.Helper()
	before := entries(t, cfg.Dir)
	ctx, cancel := context.WithTimeout(t.Context(), h.timeout())
	defer cancel()
	vm, err := h.Driver.Start(ctx, cfg)
	if err == nil {
		vm.Close()
		t.Fatal("the VM has started")
	}
	t.Logf("Start: %v (hint: %s)", err, hint.Of(err))
	if ctx.Err() != nil {
		t.Error("the start took until its deadline")
	}
	// The console's file may have been created.
	after := entries(t, cfg.Dir)
	delete(after, filepath.Base(cfg.Console))
	for name := range after {
		if !before[name] {
			t.Errorf("the failed start left %s behind", name)
		}
	}
	return err
}

func entries(t *testing.T, dir string) map[string]bool {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range list {
		names[e.Name()] = true
	}
	return names
}

// junk writes a file that is neither a kernel nor a usual disk.
func junk(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(name, bytes.Repeat([]byte(notAKernel), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func testBadKernel(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	cfg.Kernel = filepath.Join(t.TempDir(), "missing")
	if err := h.refuse(t, cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing kernel: %v, want an error that wraps %v", err, fs.ErrNotExist)
	}
	cfg.Kernel = junk(t)
	if err := h.refuse(t, cfg); !strings.Contains(err.Error(), cfg.Kernel) {
		t.Errorf("a kernel that is none: %v, want an error that names %s", err, cfg.Kernel)
	}
}

func testBadDisk(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	disk := filepath.Join(t.TempDir(), "missing")
	cfg.Disks = append(cfg.Disks, hypervisor.Disk{Path: disk, Serial: "missing"})
	if err := h.refuse(t, cfg); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), disk) {
		t.Errorf("a missing disk: %v, want an error that names it and wraps %v", err, fs.ErrNotExist)
	}
	cfg.Disks[len(cfg.Disks)-1].Path = t.TempDir()
	h.refuse(t, cfg)
}

func testNotEnoughMemory(t *testing.T, h Harness) {
	cfg := h.testConfig(t)
	cfg.Memory = 1 << 50
	if err := h.refuse(t, cfg); hint.Of(err) == "" {
		t.Errorf("a petabyte of memory: %v carries no hint", err)
	}
	cfg.Memory = hypervisor.MinMemory - 1
	h.refuse(t, cfg)
}
