package kvm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/virtionet"
)

func TestConformance(t *testing.T) {
	needVM(t)
	noLeak(t)
	hvtest.Conformance(t, harness())
}

// TestDatagrams runs the part of the conformance tests that differs where frames are
// datagrams.
func TestDatagrams(t *testing.T) {
	needVM(t)
	noLeak(t)
	h := harness()
	h.Driver = New(Options{Framing: virtionet.Datagram})
	h.Only = []string{"Frames"}
	hvtest.Conformance(t, h)
}

// TestOrdinaryUser runs the conformance tests as a user without privileges.
func TestOrdinaryUser(t *testing.T) {
	needVM(t)
	if os.Getuid() != 0 {
		t.Skip("all tests run as an ordinary user already")
	}
	home := t.TempDir()
	// The parent directories belong to root.
	for dir := home; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	exe := filepath.Join(home, "kvm.test")
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(exe, b, 0o755), os.Chown(home, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, "-test.v", "-test.run", "^TestConformance$")
	cmd.Dir = home
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + home, guestDirEnv + "=" + guestDir}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: 65534, Gid: 65534},
		Pdeathsig:  syscall.SIGKILL,
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestConformance/Boot") {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
}

// TestDevices checks the devices inside the guest, and discards a disk's content.
func TestDevices(t *testing.T) {
	cfg := config(t)
	data := filepath.Join(cfg.Dir, "data, with a comma.img")
	system := filepath.Join(cfg.Dir, "system.img")
	disk(t, data, 64<<20)
	disk(t, system, 1<<20)
	cfg.Disks = []hypervisor.Disk{{Path: system, Serial: "system", ReadOnly: true}, {Path: data, Serial: "data"}}
	served := make(chan virtionet.Framing, 1)
	cfg.NIC = &hypervisor.NIC{
		MAC: net.HardwareAddr{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xee}, MTU: 65520,
		Serve: func(ctx context.Context, c net.Conn, f virtionet.Framing) error {
			served <- f
			_, err := io.Copy(io.Discard, c)
			return err
		},
	}
	h := harness()
	vm, _ := h.Boot(t, cfg)
	if got, want := h.Control(t, vm, "disks"), "system:1048576:ro data:67108864:rw"; got != want {
		t.Errorf("disks: %s, want %s", got, want)
	}
	if got, want := h.Control(t, vm, "nic"), "5a:94:ef:e4:0c:ee 65520"; got != want {
		t.Errorf("network card: %s, want %s", got, want)
	}
	if got := h.Control(t, vm, "cmdline"); !strings.HasSuffix(got, " quiet") {
		t.Errorf("kernel arguments: %s", got)
	}
	if f := <-served; f != virtionet.Stream {
		t.Errorf("framing %v", f)
	}

	h.Control(t, vm, "write data 32")
	if n := allocated(t, data); n < 32<<20 {
		t.Errorf("%d bytes of the disk are on the host, 32 MiB were written", n)
	}
	h.Control(t, vm, "discard data")
	if n := allocated(t, data); n > 1<<20 {
		t.Errorf("%d bytes of the disk are on the host after they were discarded", n)
	}

	// The data disk is in use; two VMs on it would ruin it.
	second := config(t)
	second.Disks = cfg.Disks[1:]
	_, err := h.Driver.Start(t.Context(), second)
	if err == nil || !strings.Contains(err.Error(), "in use") || hint.Of(err) == "" {
		t.Errorf("a second VM on a disk: %v (hint: %s)", err, hint.Of(err))
	}
}

// disk makes a sparse file.
func disk(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// allocated returns a file's disk usage on the host, in bytes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestStreams moves much data both ways, then opens many streams at once.
func TestStreams(t *testing.T) {
	h := harness()
	vm, _ := h.Boot(t, config(t))
	const size = 64 << 20

	c := h.Dial(t, vm, protocol.SinkPort)
	start := time.Now()
	if _, err := io.CopyN(c, zeros{}, size); err != nil {
		t.Fatal(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || strings.TrimSpace(string(got)) != strconv.Itoa(size) {
		t.Errorf("the guest has read %q of %d bytes, %v", got, size, err)
	}
	t.Logf("to the guest: %.0f MB/s", size/1e6/time.Since(start).Seconds())
	c.Close()

	c = h.Dial(t, vm, protocol.SourcePort)
	start = time.Now()
	fmt.Fprintln(c, size)
	if n, err := io.Copy(io.Discard, c); err != nil || n != size {
		t.Errorf("read %d of %d bytes, %v", n, size, err)
	}
	t.Logf("from the guest: %.0f MB/s", size/1e6/time.Since(start).Seconds())
	c.Close()

	var all sync.WaitGroup
	start = time.Now()
	for range 1000 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			c, err := vm.Dial(ctx, protocol.EchoPort)
			if err != nil {
				t.Errorf("dial: %v", err)
				return
			}
			defer c.Close()
			h.Echo(t, c, 1000)
		})
	}
	all.Wait()
	t.Logf("1000 streams at once took %v", time.Since(start).Round(time.Millisecond))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }
