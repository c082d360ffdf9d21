//go:build unix

package vz_test

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
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/hypervisor/vz"
	"github.com/lsub/lsub/hypervisor/vz/vztest"
	"github.com/lsub/lsub/virtionet"
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

// standIn is a framework whose guests are fake.
func standIn() *vztest.Framework {
	return &vztest.Framework{Engine: &hvtest.Fake{Framing: virtionet.Datagram}, Mac: vztest.Mac(), Saves: true}
}

// harness boots the guests of f.
func harness(f *vztest.Framework) hvtest.Harness {
	return hvtest.Harness{Driver: vz.NewWith(f, vz.Options{}), Config: config}
}

// TestConformance runs the promises of all drivers with fake guests.
func TestConformance(t *testing.T) {
	noLeak(t)
	f := standIn()
	h := harness(f)
	h.Kill = func(_ *testing.T, vm hypervisor.VM) { kill(f, vm) }
	hvtest.Conformance(t, h)
}

// kill ends the engine's VM of a VM by an error. The machines of f are in the order of their
// starts, as are those that the test holds.
func kill(f *vztest.Framework, vm hypervisor.VM) {
	for _, m := range f.Machines() {
		if engine, ok := m.VM().(*hvtest.VM); ok && engine.Config().Console == vz.ConsoleOf(vm) {
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
				if strings.Contains(s, "hypervisor/vz") && !strings.Contains(s, "testing.tRunner") && !strings.Contains(s, "testing.(*M)") {
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

// vzError is an error as the framework makes it.
func vzError(domain string, code int, description string) error {
	return &vz.Error{Domain: domain, Code: code, Description: description}
}

// TestTrouble has a sentence and a hint for each kind of trouble.
func TestTrouble(t *testing.T) {
	const invalid = "Invalid virtual machine configuration. "
	for _, c := range []struct {
		name       string
		change     func(*vztest.Framework, *hypervisor.Config)
		want, hint string
		is         error
	}{
		{"off", func(f *vztest.Framework, _ *hypervisor.Config) { f.Mac.Supported = false },
			"the hypervisor of this Mac is off", "nested virtualization", nil},
		{"too old", func(f *vztest.Framework, _ *hypervisor.Config) { f.Mac.Version = "12.7.6" },
			"macOS 12.7.6 is too old; lsub needs macOS 13.0", "update macOS", nil},
		{"too old for a feature", func(f *vztest.Framework, _ *hypervisor.Config) { f.NewErr = fmt.Errorf("disk: %w", vz.ErrUnavailable) },
			"macOS is too old", "update macOS", nil},
		{"not signed", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.CheckErr = vzError("VZErrorDomain", 2, invalid+"The process doesn’t have the “com.apple.security.virtualization” entitlement.")
			f.NewErr = f.CheckErr
		}, "not signed", "./task sign", nil},
		{"not allowed", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("NSPOSIXErrorDomain", 1, "Operation not permitted")
		}, "macOS does not allow lsub to run VMs", "sandbox", nil},
		{"denied", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = &vz.Error{Domain: "VZErrorDomain", Code: 1, Description: "Internal Virtualization error.", Details: "hv_vm_create: HV_DENIED"}
		}, "macOS does not allow lsub to run VMs", "Terminal", nil},
		{"taken", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = &vz.Error{Domain: "VZErrorDomain", Code: 1, Description: "Internal Virtualization error.", Details: "hv_vm_create: HV_BUSY"}
		}, "another program has taken the hypervisor", "quit other programs", nil},
		{"too many VMs", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("VZErrorDomain", 6, "The maximum supported number of active virtual machines has been reached.")
		}, "another program has taken the hypervisor", "quit other programs", nil},
		{"no memory", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("NSPOSIXErrorDomain", 12, "Cannot allocate memory")
		}, "not enough memory", "LSUB_MEMORY", nil},
		{"more memory than the Mac gives", func(f *vztest.Framework, cfg *hypervisor.Config) { f.Mac.MaxMemory, cfg.Memory = 8<<30, 16<<30 },
			"the VM wants 16384 MiB, this Mac gives a VM 8192 MiB at most", "LSUB_MEMORY", nil},
		{"more processors than the Mac gives", func(f *vztest.Framework, cfg *hypervisor.Config) { f.Mac.MaxCPUs, cfg.CPUs = 4, 8 },
			"the VM wants 8 processors", "fewer", nil},
		{"disk in use", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.NewErr = vzError("VZErrorDomain", 2, invalid+"The storage device attachment is invalid.")
		}, "a disk is in use", "stop it first", hypervisor.ErrDiskInUse},
		{"disk locked", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("NSPOSIXErrorDomain", 35, "Resource temporarily unavailable")
		}, "a disk is in use", "stop it first", hypervisor.ErrDiskInUse},
		{"damaged disk", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("VZErrorDomain", 5, "Invalid disk image.")
		}, "cannot read a disk image", "damaged", nil},
		{"full disk", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("VZErrorDomain", 8, "Out of disk space.")
		}, "the disk of this Mac is full", "make room", nil},
		{"not supported", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("VZErrorDomain", 10, "Not supported.")
		}, "this Mac cannot do it", "update macOS", nil},
		{"nested", func(_ *vztest.Framework, cfg *hypervisor.Config) { cfg.Nested = true },
			"VMs cannot run VMs on this Mac", "M3", nil},
		{"something else", func(f *vztest.Framework, _ *hypervisor.Config) {
			f.StartErr = vzError("VZErrorDomain", 1, "Internal Virtualization error. The virtual machine failed to start.")
		}, "The virtual machine failed to start. (VZErrorDomain, code 1)", "log show", nil},
		{"compressed kernel", func(_ *vztest.Framework, cfg *hypervisor.Config) {
			if err := os.WriteFile(cfg.Kernel, []byte("\x1f\x8b\x08"), 0o600); err != nil {
				panic(err)
			}
		}, "does not boot an gzip archive", "it takes an ELF vmlinux", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			noLeak(t)
			f, cfg := standIn(), config(t)
			c.change(f, &cfg)
			d := vz.NewWith(f, vz.Options{})
			_, err := d.Start(t.Context(), cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("Start: %v (hint: %s), want %q (hint: %q)", err, hint.Of(err), c.want, c.hint)
			}
			if f.CheckErr != nil || !f.Mac.Supported || f.Mac.Version != vztest.Mac().Version {
				if err := d.Check(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(hint.Of(err), c.hint) {
					t.Errorf("Check: %v (hint: %s), want %q (hint: %q)", err, hint.Of(err), c.want, c.hint)
				}
			}
		})
	}
}

// TestCheckTrial has a framework that finds fault with the small VM of Check for a reason that
// says nothing: real VMs may start all the same.
func TestCheckTrial(t *testing.T) {
	f := standIn()
	f.CheckErr = vzError("VZErrorDomain", 2, "Invalid virtual machine configuration. A disk is needed.")
	if err := vz.NewWith(f, vz.Options{}).Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestLockedDisk has a disk that another program has locked, as the Finder does with one that
// it has mounted.
func TestLockedDisk(t *testing.T) {
	cfg := config(t)
	cfg.Disks = []hypervisor.Disk{{Path: filepath.Join(cfg.Dir, "disk")}}
	f, err := os.Create(cfg.Disks[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := vz.NewWith(standIn(), vz.Options{}).Start(t.Context(), cfg); !errors.Is(err, hypervisor.ErrDiskInUse) || hint.Of(err) == "" {
		t.Errorf("Start: %v (hint: %s), want %v", err, hint.Of(err), hypervisor.ErrDiskInUse)
	}
}

// TestKilled kills the process that the VM lives in.
func TestKilled(t *testing.T) {
	noLeak(t)
	f := standIn()
	h := harness(f)
	vm, _ := h.Boot(t, config(t))
	kill(f, vm)
	if err := vm.Wait(); err == nil || !strings.Contains(err.Error(), "macOS has ended the VM") || !strings.Contains(hint.Of(err), "log show") {
		t.Errorf("Wait: %v (hint: %s)", err, hint.Of(err))
	}
}

// TestMacSleeps pauses the VM as macOS does, without being asked. It goes on by itself, and
// meanwhile the VM says why it stands still.
func TestMacSleeps(t *testing.T) {
	noLeak(t)
	var why error
	asleep := make(chan struct{})
	f := standIn()
	h := harness(f)
	vm, _ := h.Boot(t, config(t))
	m := f.Machines()[0]
	m.BeforeResume = func() {
		why = vm.(hypervisor.Paused).Paused()
		close(asleep)
	}
	if err := m.Sleep(); err != nil {
		t.Fatal(err)
	}
	h.Within(t, "the driver to resume the VM", func() { <-asleep })
	if why == nil || !strings.Contains(why.Error(), "while the Mac sleeps") || hint.Of(why) == "" {
		t.Errorf("Paused: %v (hint: %s)", why, hint.Of(why))
	}
	c := h.Dial(t, vm, protocol.EchoPort) // waits until the VM goes on
	defer c.Close()
	h.Echo(t, c, 1000)
	if err := vm.(hypervisor.Paused).Paused(); err != nil {
		t.Errorf("Paused after the Mac woke up: %v", err)
	}
}

// TestEarlyDial dials a guest whose vsock driver is not there yet.
func TestEarlyDial(t *testing.T) {
	noLeak(t)
	f := standIn()
	f.Refusals = 3
	cfg := config(t)
	vm, err := vz.NewWith(f, vz.Options{}).Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	h := harness(f)
	c := h.Dial(t, vm, protocol.EchoPort)
	defer c.Close()
	h.Echo(t, c, 1000)
	if _, err := vm.Dial(t.Context(), 4711); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("Dial to a port without listener: %v", err)
	}
}

// TestStartHangs cancels a start that the framework does not finish. Its end is not lost: the
// machine is stopped.
func TestStartHangs(t *testing.T) {
	f := standIn()
	f.Hang = true
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	cfg := config(t)
	cfg.NIC = &hypervisor.NIC{MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500, Serve: func(context.Context, net.Conn, virtionet.Framing) error {
		t.Error("a VM that did not start has a network")
		return nil
	}}
	if _, err := vz.NewWith(f, vz.Options{}).Start(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start: %v, want %v", err, context.DeadlineExceeded)
	}
	f.Machines()[0].Stop()
}
