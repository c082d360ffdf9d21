package hvwindows_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
	"github.com/lsub/lsub/hypervisor/hv_windows/hcstest"
	"github.com/lsub/lsub/hypervisor/hvtest"
)

// The functions that only the stand-in for computecore.dll has (testdata/computecore).
var (
	computecore    = windows.NewLazySystemDLL("computecore.dll")
	standInExit    = computecore.NewProc("StandInExit")
	standInHandles = computecore.NewProc("StandInHandles")
)

// needStandIn skips a test that would ask a real service for what it does not do.
func needStandIn(t *testing.T) {
	t.Helper()
	if err := standInHandles.Find(); err != nil {
		t.Skipf("computecore.dll is not the stand-in of ./task test:wine: %v", err)
	}
	t.Cleanup(func() {
		// Calls return before their operations are closed.
		if n, _, _ := standInHandles.Call(); int32(n) != 0 {
			t.Errorf("%d operations and machines are still open", int32(n))
		}
	})
}

// half is a host whose machines are those of the stand-in for computecore.dll, through the
// real binding, and whose guests and streams are those of package hcstest.
type half struct {
	hvwindows.Host // the binding
	guests         *hcstest.Host
}

func (h half) Grant(id, path string) error {
	return errors.Join(h.Host.Grant(id, path), h.guests.Grant(id, path))
}

func (h half) OpenConsole(pipe string) (io.ReadCloser, error) { return h.guests.OpenConsole(pipe) }

func (h half) Create(id string, document []byte) (hvwindows.System, error) {
	s, err := h.Host.Create(id, document)
	if err != nil {
		return nil, err
	}
	g, err := h.guests.Create(id, document)
	if err != nil {
		s.Close()
		return nil, err
	}
	return &halfSystem{System: s, guest: g.(*hcstest.System)}, nil
}

func (h half) Dial(ctx context.Context, runtime string, port uint32) (net.Conn, error) {
	return h.guests.Dial(ctx, runtime, port)
}

func (h half) Listen(runtime string, port uint32) (net.Listener, error) {
	return h.guests.Listen(runtime, port)
}

type halfSystem struct {
	hvwindows.System
	guest *hcstest.System
}

func (s *halfSystem) RuntimeID() (string, error) {
	if id, err := s.System.RuntimeID(); err != nil || !strings.HasPrefix(id, "00000000-0000-0000-0000-") {
		return "", fmt.Errorf("the runtime identifier %q (%w)", id, err)
	}
	return s.guest.RuntimeID()
}

func (s *halfSystem) Start() error {
	if err := s.System.Start(); err != nil {
		return err
	}
	if err := s.guest.Start(); err != nil {
		return err
	}
	go func() { exit(s.guest.ID(), <-s.guest.Exited()) }()
	return nil
}

// exit has the stand-in end a machine.
func exit(id, document string) {
	name, _ := windows.UTF16PtrFromString(id)
	text, _ := windows.UTF16PtrFromString(document)
	standInExit.Call(uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(text)))
}

func (s *halfSystem) Terminate() error {
	return errors.Join(s.System.Terminate(), s.guest.Terminate())
}

func (s *halfSystem) Pause() error  { return errors.Join(s.System.Pause(), s.guest.Pause()) }
func (s *halfSystem) Resume() error { return errors.Join(s.System.Resume(), s.guest.Resume()) }
func (s *halfSystem) Close()        { s.System.Close(); s.guest.Close() }

// TestConformanceBinding runs the promises of all drivers through the binding.
func TestConformanceBinding(t *testing.T) {
	needStandIn(t)
	guests := standIn()
	host := half{hvwindows.WindowsHost, guests}
	h := hvtest.Harness{Driver: hvwindows.NewWith(host, hvwindows.Options{}), Config: config}
	h.Kill = func(_ *testing.T, vm hypervisor.VM) { kill(guests, vm) }
	h.Skip = map[string]string{"Nested": "a fake VM runs no VMs; TestDocument has the field"}
	hvtest.Conformance(t, h)
}

// TestBinding follows one machine, its serial port included.
func TestBinding(t *testing.T) {
	needStandIn(t)
	cfg := config(t)
	d := hvwindows.New(hvwindows.Options{})
	if err := d.Check(t.Context()); err != nil {
		t.Fatalf("Check: %v", err)
	}
	vm, err := d.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	const reset = `{"Status":0,"ExitType":"UnexpectedExit","Attribution":[{"WorkerExit":{"Type":"StoppedOnReset"}}]}`
	awaitConsole(t, cfg.Console)
	exit(hvwindows.SystemID(&cfg), reset)
	if err := vm.Wait(); !errors.Is(err, hypervisor.ErrGuestCrashed) {
		t.Errorf("Wait: %v, want %v", err, hypervisor.ErrGuestCrashed)
	}
	if err := vm.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// TestMany makes and ends machines at once, some by themselves at the same moment: callbacks
// come late, or not at all.
func TestMany(t *testing.T) {
	needStandIn(t)
	d := hvwindows.New(hvwindows.Options{})
	var all sync.WaitGroup
	for i := range 50 {
		cfg := config(t)
		cfg.Name = fmt.Sprint("many-", i)
		all.Go(func() {
			vm, err := d.Start(t.Context(), cfg)
			if err != nil {
				t.Error(err)
				return
			}
			if i%2 == 0 {
				exit(hvwindows.SystemID(&cfg), `{"Status":0,"ExitType":"GracefulExit"}`)
			}
			if err := vm.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			if err := vm.Wait(); err != nil {
				t.Errorf("Wait: %v", err)
			}
		})
	}
	all.Wait()
}

// TestInjected has each function of the service fail, at once and later.
func TestInjected(t *testing.T) {
	needStandIn(t)
	for _, function := range []string{"HcsGetServiceProperties", "HcsEnumerateComputeSystems", "HcsGrantVmAccess", "HcsCreateComputeSystem", "HcsSetComputeSystemCallback", "HcsGetComputeSystemProperties", "HcsStartComputeSystem"} {
		for _, when := range []string{"", "+"} {
			t.Run(function+when, func(t *testing.T) {
				for code, want := range map[string]string{"80370114": "dism /online", "8037011B": "Hyper-V Administrators", "8007000E": "LSUB_MEMORY", "80370111": ""} {
					t.Setenv("LSUB_HCS_FAIL", function+"="+when+code)
					_, err := hvwindows.New(hvwindows.Options{}).Start(t.Context(), config(t))
					if when == "+" && (function == "HcsGetServiceProperties" || function == "HcsGrantVmAccess" || function == "HcsSetComputeSystemCallback") {
						return // they are no operations
					}
					if err == nil || !strings.Contains(err.Error(), function) || !strings.Contains(strings.ToUpper(err.Error()), "0X"+code) || !strings.Contains(hint.Of(err), want) {
						t.Errorf("%s: %v (hint: %s)", code, err, hint.Of(err))
					}
				}
			})
		}
	}
}

// TestBadDocument has the service find fault with a document.
func TestBadDocument(t *testing.T) {
	needStandIn(t)
	cfg := full()
	good, err := hvwindows.NewDocument(&cfg, hcstest.Windows())
	if err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		`"KernelFilePath"`: `"KernelPath"`, `"Count": 8`: `"Count": "8"`, `"VirtualDisk"`: `"Virtualdisk"`,
		`"SizeInMB": 4096`: `"SizeInMB": 4096.5`, `"StopOnReset": true`: `"StopOnReset": 1`, `"Major": 2`: `"Major": 3`, `"Owner"`: `Owner`,
	} {
		s, err := hvwindows.WindowsHost.Create("bad", []byte(strings.Replace(string(good), from, to, 1)))
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, hvwindows.InvalidJSON) {
			t.Errorf("%s for %s: %v, want %v", to, from, err, hvwindows.InvalidJSON)
		}
	}
	s, err := hvwindows.WindowsHost.Create("good", good)
	if err != nil {
		t.Fatalf("the document of every device: %v", err)
	}
	s.Close()
}

// awaitConsole waits for the line that the stand-in says on the serial port.
func awaitConsole(t *testing.T, name string) {
	t.Helper()
	for t.Context().Err() == nil {
		if b, _ := os.ReadFile(name); strings.Contains(string(b), "stand-in: the kernel boots\r\n") {
			return
		}
	}
}
