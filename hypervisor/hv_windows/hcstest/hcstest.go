// Package hcstest stands in for the Host Compute System of Windows, on any system:
//
//	driver := hvwindows.NewWith(&hcstest.Host{Engine: engine, Windows: hcstest.Windows()}, hvwindows.Options{})
//
// Its machines are VMs of another driver, the engine, such as [hvtest.Fake]. It checks the
// documents that it is given against schema.json, opens VHDX files, and has Windows' habits:
// dials that are refused while the guest boots, a serial port that is a pipe, errors with
// Windows' numbers.
//
// [hvtest.Fake]: https://pkg.go.dev/github.com/lsub/lsub/hypervisor/hvtest#Fake
package hcstest

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lsub/lsub/hypervisor"
	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
)

var (
	_ hvwindows.Host   = (*Host)(nil)
	_ hvwindows.System = (*System)(nil)
)

// Schema is the schema of the documents, in the language of json-schema.org.
//
//go:embed schema.json
var Schema []byte

// Validate returns what the schema finds wrong with a document.
func Validate(document []byte) error {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema))
	if err != nil {
		return err
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", schema); err != nil {
		return err
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		return err
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(document))
	if err != nil {
		return err
	}
	return s.Validate(doc)
}

// Windows returns the facts of a recent Windows.
func Windows() hvwindows.Facts {
	return hvwindows.Facts{
		Arch: "amd64", Version: "10.0.26100", Schema: hvwindows.Version{Major: 2, Minor: 14},
		UserSID: "S-1-5-21-1-2-3-1001", MaxCPUs: 64, MaxMemory: 1 << 40,
	}
}

// Host is a [hvwindows.Host]. Its exported fields may not change after its first use.
type Host struct {
	Engine  hypervisor.Driver
	Windows hvwindows.Facts
	// FactsErr, GrantErr, CreateErr and StartErr are what these calls fail with.
	FactsErr, GrantErr, CreateErr, StartErr error
	// ReadsVHDX says that the engine opens VHDX files itself. Else it is given raw copies, and
	// what a guest writes is gone when its machine is.
	ReadsVHDX bool
	// Hang makes a machine's Start wait until it is terminated.
	Hang bool
	// Refusals is how many dials of each machine are refused, as while a guest boots.
	Refusals int

	mu      sync.Mutex
	systems []*System
	granted map[string]bool // "ID PATH"
}

// Facts returns Windows.
func (h *Host) Facts() (hvwindows.Facts, error) { return h.Windows, h.FactsErr }

// Grant notes that a VM may open a file.
func (h *Host) Grant(id, path string) error {
	if h.GrantErr != nil {
		return h.GrantErr
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.granted == nil {
		h.granted = map[string]bool{}
	}
	h.granted[id+" "+path] = true
	return nil
}

// Systems returns all machines, the first one first.
func (h *Host) Systems() []*System {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.systems)
}

// failure is an error as the service makes it.
func failure(call string, r hvwindows.Result, detail string) error {
	return &hvwindows.ServiceError{Call: call, Err: r, Detail: detail}
}

// machine is what the stand-in reads in a document.
type machine struct {
	Owner          string
	VirtualMachine struct {
		Chipset struct {
			LinuxKernelDirect struct{ KernelFilePath, InitRdPath, KernelCmdLine string }
		}
		ComputeTopology struct {
			Memory    struct{ SizeInMB int64 }
			Processor struct {
				Count                          int
				ExposeVirtualizationExtensions bool
			}
		}
		Devices struct {
			ComPorts map[string]struct{ NamedPipe string }
			Scsi     map[string]struct {
				Attachments map[string]struct {
					Path     string
					ReadOnly bool
				}
			}
		}
	}
}

// Create makes a machine of a document that the schema allows, and whose files were granted.
func (h *Host) Create(id string, document []byte) (hvwindows.System, error) {
	const call = "HcsCreateComputeSystem"
	if h.CreateErr != nil {
		return nil, h.CreateErr
	}
	if err := Validate(document); err != nil {
		return nil, failure(call, hvwindows.InvalidJSON, err.Error())
	}
	var m machine
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, failure(call, hvwindows.InvalidJSON, err.Error())
	}
	s := &System{host: h, id: id, machine: &m, exited: make(chan string, 1), terminated: make(chan struct{}), runtime: rand.Text(), refusals: h.Refusals}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range h.systems {
		if other.id == id && !other.isGone() {
			return nil, failure(call, hvwindows.SystemAlreadyExists, "")
		}
	}
	for _, path := range s.files() {
		if !h.granted[id+" "+path] {
			return nil, failure(call, hvwindows.AccessDenied, path)
		}
	}
	h.systems = append(h.systems, s)
	return s, nil
}

// find returns a machine by its runtime identifier.
func (h *Host) find(runtime string) (*System, hypervisor.VM) {
	for _, s := range h.Systems() {
		s.mu.Lock()
		vm := s.vm
		s.mu.Unlock()
		if s.runtime == runtime {
			return s, vm
		}
	}
	return nil, nil
}

// Dial opens a stream to the guest.
func (h *Host) Dial(ctx context.Context, runtime string, port uint32) (net.Conn, error) {
	s, vm := h.find(runtime)
	if vm == nil {
		return nil, syscall.ECONNREFUSED
	}
	s.mu.Lock()
	refused := s.refusals > 0
	s.refusals--
	s.mu.Unlock()
	if refused {
		return nil, syscall.ECONNREFUSED
	}
	c, err := vm.Dial(ctx, port)
	if errors.Is(err, syscall.ECONNRESET) {
		err = syscall.ECONNREFUSED
	}
	return c, err
}

// Listen accepts the guest's streams.
func (h *Host) Listen(runtime string, port uint32) (net.Listener, error) {
	_, vm := h.find(runtime)
	if vm == nil {
		return nil, errors.New("there is no such VM")
	}
	return vm.Listen(context.Background(), port)
}

// OpenConsole returns the engine's console.
func (h *Host) OpenConsole(pipe string) (io.ReadCloser, error) {
	for _, s := range h.Systems() {
		if s.machine.VirtualMachine.Devices.ComPorts["0"].NamedPipe == pipe && !s.isGone() {
			return s.openConsole()
		}
	}
	return nil, &os.PathError{Op: "open", Path: pipe, Err: os.ErrNotExist}
}

// System is a machine.
type System struct {
	host       *Host
	id         string
	runtime    string
	machine    *machine
	exited     chan string
	terminated chan struct{} // closed by the first Terminate

	mu       sync.Mutex
	vm       hypervisor.VM
	dir      string // of the engine's files
	forced   bool   // by Terminate
	gone     bool
	writes   []string // the disks that it writes to, once it runs
	reads    []string
	refusals int
}

// VM returns the engine's VM; nil before the machine was started.
func (s *System) VM() hypervisor.VM {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.vm
}

// ID is the machine's identifier.
func (s *System) ID() string { return s.id }

// Owner is what 'hcsdiag list' shows.
func (s *System) Owner() string { return s.machine.Owner }

func (s *System) isGone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gone
}

// files are those that the machine has to open.
func (s *System) files() []string {
	k := s.machine.VirtualMachine.Chipset.LinuxKernelDirect
	files := []string{k.KernelFilePath}
	if k.InitRdPath != "" {
		files = append(files, k.InitRdPath)
	}
	for _, a := range s.machine.VirtualMachine.Devices.Scsi["0"].Attachments {
		files = append(files, a.Path)
	}
	return files
}

// RuntimeID names the machine.
func (s *System) RuntimeID() (string, error) { return s.runtime, nil }

// Exited receives the exit document.
func (s *System) Exited() <-chan string { return s.exited }

// Start starts the engine's VM.
func (s *System) Start() error {
	const call = "HcsStartComputeSystem"
	if err := s.host.StartErr; err != nil {
		return err
	}
	if s.host.Hang {
		<-s.terminated
		return failure(call, hvwindows.TerminatedDuringStart, "")
	}
	if err := s.openDisks(); err != nil {
		return err
	}
	vm, err := s.start()
	if err != nil {
		s.finish()
		return failure(call, hvwindows.TerminatedDuringStart, err.Error())
	}
	go func() {
		err := vm.Wait()
		os.RemoveAll(s.dir)
		s.mu.Lock()
		status := exitDocument(err, s.forced)
		s.mu.Unlock()
		s.finish()
		s.exited <- status
	}()
	return nil
}

// openDisks opens the disks as Windows does: nobody else may write to one that is read.
func (s *System) openDisks() error {
	s.host.mu.Lock()
	defer s.host.mu.Unlock()
	var reads, writes []string
	for _, a := range s.machine.VirtualMachine.Devices.Scsi["0"].Attachments {
		if a.ReadOnly {
			reads = append(reads, a.Path)
		} else {
			writes = append(writes, a.Path)
		}
	}
	for _, other := range s.host.systems {
		other.mu.Lock()
		busy := slices.ContainsFunc(writes, func(p string) bool {
			return slices.Contains(other.writes, p) || slices.Contains(other.reads, p)
		}) || slices.ContainsFunc(reads, func(p string) bool { return slices.Contains(other.writes, p) })
		other.mu.Unlock()
		if busy {
			return failure("HcsStartComputeSystem", hvwindows.SharingViolation, "")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads, s.writes = reads, writes
	return nil
}

func (s *System) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone, s.reads, s.writes = true, nil, nil
}

// exitDocument says how a VM has ended.
func exitDocument(err error, forced bool) string {
	switch {
	case errors.Is(err, hypervisor.ErrGuestCrashed):
		return `{"Status":0,"ExitType":"UnexpectedExit","Attribution":[{"WorkerExit":{"ExitCode":0,"Type":"StoppedOnReset"}}]}`
	case err != nil:
		return fmt.Sprintf(`{"Status":%d,"ExitType":"UnexpectedExit","Attribution":[{"WorkerExit":{"ExitCode":1,"Type":"UnexpectedStop"}}]}`, unexpected)
	case forced:
		return `{"Status":0,"ExitType":"ForcedExit"}`
	}
	return `{"Status":0,"ExitType":"GracefulExit","Attribution":[{"SystemExit":{"Detail":"Shutdown","Initiator":"GuestOS"}}]}`
}

// unexpected is UnexpectedExit as a signed number.
const unexpected = int32(int64(hvwindows.UnexpectedExit) - 1<<32)

func (s *System) start() (hypervisor.VM, error) {
	dir, err := os.MkdirTemp("", "hcs")
	if err != nil {
		return nil, err
	}
	s.dir = dir
	cfg, err := s.config(dir)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	vm, err := s.host.Engine.Start(ctx, cfg)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.vm = vm
	return vm, nil
}

// config is the engine's description of the same machine.
func (s *System) config(dir string) (hypervisor.Config, error) {
	vm := s.machine.VirtualMachine
	kernel := vm.Chipset.LinuxKernelDirect
	cfg := hypervisor.Config{
		Name: s.Owner(), Dir: dir, Kernel: kernel.KernelFilePath, Initrd: kernel.InitRdPath, Cmdline: kernel.KernelCmdLine,
		CPUs: vm.ComputeTopology.Processor.Count, Memory: vm.ComputeTopology.Memory.SizeInMB << 20,
		Console: filepath.Join(dir, "console"),
	}
	// The engine's disks have serials in place of LUNs, and its own console.
	var serials, args []string
	for _, arg := range strings.Fields(kernel.KernelCmdLine) {
		if list, ok := strings.CutPrefix(arg, hypervisor.DisksArg+"="); ok {
			serials = strings.Split(list, ",")
		} else if !strings.HasPrefix(arg, "console=") {
			args = append(args, arg)
		}
	}
	cfg.Cmdline = strings.Join(args, " ")
	attachments := vm.Devices.Scsi["0"].Attachments
	for i, lun := range slices.Sorted(maps.Keys(attachments)) {
		if i >= len(serials) {
			return cfg, errors.New("a disk has no name")
		}
		path := attachments[lun].Path
		if !s.host.ReadsVHDX {
			raw := filepath.Join(dir, "disk"+lun)
			if err := toRaw(path, raw); err != nil {
				return cfg, err
			}
			path = raw
		}
		cfg.Disks = append(cfg.Disks, hypervisor.Disk{Path: path, ReadOnly: attachments[lun].ReadOnly, Serial: serials[i]})
	}
	return cfg, nil
}

// Terminate ends the VM.
func (s *System) Terminate() error {
	s.mu.Lock()
	vm, gone := s.vm, s.gone
	s.forced = true
	select {
	case <-s.terminated:
	default:
		close(s.terminated)
	}
	s.mu.Unlock()
	if vm == nil || gone {
		return failure("HcsTerminateComputeSystem", hvwindows.SystemAlreadyStopped, "")
	}
	return vm.Close()
}

// Pause pauses the VM.
func (s *System) Pause() error { return s.change("HcsPauseComputeSystem", hypervisor.Pauser.Pause) }

// Resume resumes the VM.
func (s *System) Resume() error { return s.change("HcsResumeComputeSystem", hypervisor.Pauser.Resume) }

func (s *System) change(call string, do func(hypervisor.Pauser, context.Context) error) error {
	p, ok := s.VM().(hypervisor.Pauser)
	if !ok || s.isGone() {
		return failure(call, hvwindows.InvalidState, "")
	}
	return do(p, context.Background())
}

// Close ends a VM that still runs, as ShouldTerminateOnLastHandleClosed says.
func (s *System) Close() {
	if vm := s.VM(); vm != nil {
		vm.Close()
	}
	s.finish()
}
