package hvwindows_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
)

// config is for a fake guest.
func config(t *testing.T) hypervisor.Config {
	t.Helper()
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, []byte("\x7fELF"), 0o600); err != nil {
		t.Fatal(err)
	}
	return hypervisor.Config{
		Name: "test", Dir: dir, Kernel: kernel, CPUs: 1, Memory: hypervisor.MinMemory,
		Console: filepath.Join(dir, "console"), Logger: logger(t),
	}
}

func logger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// standIn is a host whose guests are fake.
func standIn() *hcstest.Host {
	return &hcstest.Host{Engine: &hvtest.Fake{}, Windows: hcstest.Windows()}
}

func harness(h hvwindows.Host) hvtest.Harness {
	return hvtest.Harness{Driver: hvwindows.NewWith(h, hvwindows.Options{}), Config: config}
}

// TestConformance runs the promises of all drivers with fake guests.
func TestConformance(t *testing.T) {
	noLeak(t)
	host := standIn()
	h := harness(host)
	h.Kill = func(_ *testing.T, vm hypervisor.VM) { kill(host, vm) }
	h.Skip = map[string]string{"Nested": "a fake VM runs no VMs; TestDocument has the field"}
	hvtest.Conformance(t, h)
}

// kill ends the engine's VM of a VM by an error.
func kill(host *hcstest.Host, vm hypervisor.VM) {
	for _, s := range host.Systems() {
		if engine, ok := s.VM().(*hvtest.VM); ok && s.ID() == hvwindows.IDOf(vm) {
			engine.Die(errors.New("killed"))
		}
	}
}

// noLeak checks at the test's end that no goroutine of the driver and the stand-in is left.
func noLeak(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		deadline := time.Now().Add(10 * time.Second)
		for {
			buf := make([]byte, 1<<20)
			var left []string
			for _, s := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
				if strings.Contains(s, "hypervisor/hv_windows") && !strings.Contains(s, "testing.tRunner") && !strings.Contains(s, "testing.(*M)") {
					left = append(left, s)
				}
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("goroutines are left:\n%s", strings.Join(left, "\n\n"))
				return
			}
			runtime.Gosched()
		}
	})
}

// TestTrouble has a sentence and a hint for each kind of trouble.
func TestTrouble(t *testing.T) {
	failed := func(r hvwindows.Result) error { return &hvwindows.ServiceError{Call: "HcsDoThing", Err: r} }
	onFacts := func(r hvwindows.Result) func(*hcstest.Host, *hypervisor.Config) {
		return func(h *hcstest.Host, _ *hypervisor.Config) { h.FactsErr = failed(r) }
	}
	onCreate := func(r hvwindows.Result) func(*hcstest.Host, *hypervisor.Config) {
		return func(h *hcstest.Host, _ *hypervisor.Config) { h.CreateErr = failed(r) }
	}
	onStart := func(r hvwindows.Result) func(*hcstest.Host, *hypervisor.Config) {
		return func(h *hcstest.Host, _ *hypervisor.Config) { h.StartErr = failed(r) }
	}
	for _, c := range []struct {
		name       string
		change     func(*hcstest.Host, *hypervisor.Config)
		want, hint string
		is         error
	}{
		{"feature off", onFacts(hvwindows.ServiceNotAvailable), "Virtual Machine Platform is off", "dism /online", nil},
		{"no Hyper-V", onCreate(hvwindows.HyperVNotInstalled), "Virtual Machine Platform is off", "dism /online", nil},
		{"off in the firmware", onStart(hvwindows.HypervisorNotPresent), "hypervisor of Windows does not run", "firmware", nil},
		{"service disabled", onFacts(hvwindows.ServiceDisabled), "Compute Service is disabled", "sc config", nil},
		{"not in the group", onCreate(hvwindows.HCSAccessDenied), "does not let you run VMs", "Hyper-V Administrators", nil},
		{"policy", onCreate(hvwindows.DisabledByPolicy), "a policy of this machine forbids VMs", "who manages", nil},
		{"memory", onStart(hvwindows.OutOfMemory), "not enough memory", "LSUB_MEMORY", nil},
		{"page file", onStart(hvwindows.CommitmentLimit), "not enough memory", "page file", nil},
		{"more memory than there is", func(h *hcstest.Host, cfg *hypervisor.Config) { h.Windows.MaxMemory, cfg.Memory = 8<<30, 16<<30 },
			"the VM wants 16384 MiB, this machine has 8192 MiB", "LSUB_MEMORY", nil},
		{"more processors than there are", func(h *hcstest.Host, cfg *hypervisor.Config) { h.Windows.MaxCPUs, cfg.CPUs = 4, 8 },
			"the VM wants 8 processors", "fewer", nil},
		{"disk locked by a backup", onStart(hvwindows.SharingViolation), "a disk is in use", "backup", hypervisor.ErrDiskInUse},
		{"VM of before", onCreate(hvwindows.SystemAlreadyExists), "the VM before has not ended", "hcsdiag", hypervisor.ErrDiskInUse},
		{"antivirus", onStart(hvwindows.VirusInfected), "antivirus", "scans", nil},
		{"compressed disk", onStart(hvwindows.VirtualDiskLimit), "does not take the VM's disk", "compression", nil},
		{"damaged disk", onStart(hvwindows.VirtualDiskCorrupt), "cannot read a disk", "backup", nil},
		{"full disk", onStart(hvwindows.DiskFull), "the disk of this machine is full", "make room", nil},
		{"path too long", func(h *hcstest.Host, _ *hypervisor.Config) { h.GrantErr = failed(hvwindows.PathTooLong) },
			"a path is too long", "LSUB_HOME", nil},
		{"old Windows", func(h *hcstest.Host, _ *hypervisor.Config) { h.Windows.Schema = hvwindows.Version{Major: 2, Minor: 1} },
			"too old", "update Windows", nil},
		{"description", onCreate(hvwindows.InvalidJSON), "does not understand", "update Windows", nil},
		{"service died", onStart(hvwindows.ServiceDisconnect), "VM service of Windows has failed", "event log", nil},
		{"something else", onStart(hvwindows.Result(0x80004005)), "HcsDoThing: Windows reports the error 0x80004005", "", nil},
		{"raw disk", func(_ *hcstest.Host, cfg *hypervisor.Config) {
			cfg.Disks = []hypervisor.Disk{{Path: cfg.Kernel, Serial: "data"}}
		},
			"it is a raw image", "qemu-img convert", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeak(t)
			host, cfg := standIn(), config(t)
			c.change(host, &cfg)
			d := hvwindows.NewWith(host, hvwindows.Options{})
			_, err := d.Start(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Start: %v (hint: %s), want %q (hint: %q)", err, hint.Of(err), c.want, c.hint)
			}
			if host.FactsErr != nil {
				if err := d.Check(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) {
					t.Errorf("Check: %v (hint: %s), want %q (hint: %q)", err, hint.Of(err), c.want, c.hint)
				}
			}
		})
	}
}

// TestKilled ends the VM from outside, and then its service.
func TestKilled(t *testing.T) {
	noLeak(t)
	host := standIn()
	h := harness(host)
	vm, _ := h.Boot(t, config(t))
	if err := host.Systems()[0].Terminate(); err != nil {
		t.Fatal(err)
	}
	if err := vm.Wait(); err == nil || !strings.Contains(err.Error(), "hcsdiag kill") || hint.Of(err) == "" {
		t.Errorf("Wait after 'hcsdiag kill': %v (hint: %s)", err, hint.Of(err))
	}
	vm, _ = h.Boot(t, config(t))
	kill(host, vm)
	if err := vm.Wait(); err == nil || !strings.Contains(err.Error(), "0x80370106") || !strings.Contains(hint.Of(err), "event log") {
		t.Errorf("Wait after a crash: %v (hint: %s)", err, hint.Of(err))
	}
}

// TestExit reads exit documents, such as real ones.
func TestExit(t *testing.T) {
	for doc, want := range map[string]string{
		`{"Status":0,"ExitType":"GracefulExit","Attribution":[{"SystemExit":{"Detail":"Shutdown","Initiator":"GuestOS"}}]}`: "<nil>",
		`{"Status":0,"ExitType":"GracefulExit"}`: "<nil>",
		`{"Status":0,"ExitType":"UnexpectedExit","Attribution":[{"WorkerExit":{"ExitCode":0,"Type":"StoppedOnReset"}}]}`: hypervisor.ErrGuestCrashed.Error(),
		`{"Status":0,"ExitType":"UnexpectedExit","Attribution":[{"TripleFault":{"ErrorType":2}}]}`:                       hypervisor.ErrGuestCrashed.Error(),
		`{"Status":-2143878906,"ExitType":"UnexpectedExit"}`:                                                             "the VM was ended by Windows (UnexpectedExit): the VM has ended unexpectedly (0x80370106)",
		`{"Status":0,"ExitType":"ForcedExit"}`:                                                                           "somebody has ended the VM, as with 'hcsdiag kill'",
		``:                                                                                                               "the VM has ended, and Windows does not say why: unexpected end of JSON input",
	} {
		if got := fmt.Sprint(hvwindows.ExitError(doc)); got != want {
			t.Errorf("%s: %s, want %s", doc, got, want)
		}
	}
}

// TestEarlyDial dials a guest whose vsock driver is not there yet.
func TestEarlyDial(t *testing.T) {
	noLeak(t)
	host := standIn()
	host.Refusals = 3
	vm, err := hvwindows.NewWith(host, hvwindows.Options{}).Start(t.Context(), config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	h := harness(host)
	c := h.Dial(t, vm, protocol.EchoPort)
	defer c.Close()
	h.Echo(t, c, 1000)
	if _, err := vm.Dial(t.Context(), 4711); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial to a port without listener: %v", err)
	}
}

// TestStartHangs cancels a start that Windows does not finish.
func TestStartHangs(t *testing.T) {
	noLeak(t)
	host := standIn()
	host.Hang = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := hvwindows.NewWith(host, hvwindows.Options{}).Start(ctx, config(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v, want %v", err, context.DeadlineExceeded)
	}
}

// TestOwner has what 'hcsdiag list' shows, and identifiers that a profile keeps.
func TestOwner(t *testing.T) {
	host := standIn()
	h := harness(host)
	cfg := config(t)
	cfg.Name = "lsub-default"
	for range 2 {
		vm, _ := h.Boot(t, cfg)
		if err := vm.Close(); err != nil {
			t.Fatal(err)
		}
	}
	first, second := host.Systems()[0], host.Systems()[1]
	if first.Owner() != "lsub-default" || first.ID() != second.ID() {
		t.Errorf("two VMs of a profile: %s %s and %s %s", first.Owner(), first.ID(), second.Owner(), second.ID())
	}
	other := cfg
	other.Dir = t.TempDir() // of another user
	if hvwindows.SystemID(&other) == first.ID() {
		t.Error("the VMs of two users have one identifier")
	}
}

// TestTwoUsers runs the VMs of two users of one machine, whose profiles have one name.
func TestTwoUsers(t *testing.T) {
	noLeak(t)
	host := standIn()
	h := harness(host)
	one, two := config(t), config(t)
	for _, cfg := range []hypervisor.Config{one, two} {
		vm, _ := h.Boot(t, cfg)
		defer vm.Close()
		c := h.Dial(t, vm, protocol.EchoPort)
		defer c.Close()
		h.Echo(t, c, 1000)
	}
	if s := host.Systems(); len(s) != 2 || s[0].ID() == s[1].ID() {
		t.Errorf("the machines are %v", s)
	}
}

// TestSleep has Windows halt the VM without being asked, as while the host sleeps. After it,
// streams of before go on, and a dial that began meanwhile comes through.
func TestSleep(t *testing.T) {
	noLeak(t)
	host := standIn()
	h := harness(host)
	vm, _ := h.Boot(t, config(t))
	defer vm.Close()
	before := h.Dial(t, vm, protocol.EchoPort)
	defer before.Close()
	system := host.Systems()[0]
	if err := system.Pause(); err != nil {
		t.Fatal(err)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	dialed := make(chan result, 1)
	go func() {
		c, err := vm.Dial(t.Context(), protocol.EchoPort)
		dialed <- result{c, err}
	}()
	if err := system.Resume(); err != nil {
		t.Fatal(err)
	}
	r := <-dialed
	if r.err != nil {
		t.Fatalf("a dial during the sleep: %v", r.err)
	}
	defer r.conn.Close()
	h.Echo(t, r.conn, 1000)
	h.Echo(t, before, 1000)
}
