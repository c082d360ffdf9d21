package hvwindows

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/pkg/guid"
	"golang.org/x/sys/windows"
)

// New returns a driver on the Host Compute System of this machine. It does no I/O.
func New(opts Options) *Driver { return NewWith(ThisHost(), opts) }

// ThisHost is the Host Compute System of this machine. It does no I/O.
func ThisHost() Host { return windowsHost{} }

// windowsHost is the [Host] of this machine.
type windowsHost struct{}

// Facts asks the service what it knows, and whether this user may see its VMs.
func (windowsHost) Facts() (Facts, error) {
	major, minor, build := windows.RtlGetNtVersionNumbers()
	f := Facts{Arch: runtime.GOARCH, Version: fmt.Sprintf("%d.%d.%d", major, minor, build), MaxCPUs: runtime.NumCPU()}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return f, fmt.Errorf("the user's identifier: %w", err)
	}
	f.UserSID = user.User.Sid.String()
	var kib uint64
	if ok, _, err := procInstalledMemory.Call(uintptr(unsafe.Pointer(&kib))); ok == 0 {
		return f, fmt.Errorf("the size of this machine's memory: %w", err)
	}
	f.MaxMemory = int64(kib) << 10
	if f.Schema, err = newestSchema(); err != nil {
		return f, err
	}
	_, err = operate("HcsEnumerateComputeSystems", func(op uintptr) uintptr { return call(procEnumerate, 0, op) })
	return f, err
}

// newestSchema returns the newest version of documents that the service takes.
func newestSchema() (Version, error) {
	const name = "HcsGetServiceProperties"
	query, err := windows.UTF16PtrFromString(`{"PropertyTypes":["Basic"]}`)
	if err != nil {
		return Version{}, err
	}
	if err := procServiceProperties.Find(); err != nil {
		return Version{}, &ServiceError{Call: name, Err: ServiceNotAvailable}
	}
	var result *uint16
	r, _, _ := procServiceProperties.Call(uintptr(unsafe.Pointer(query)), uintptr(unsafe.Pointer(&result)))
	text := take(result)
	if err := failed(name, r, text); err != nil {
		return Version{}, err
	}
	var answer struct {
		Properties []struct{ SupportedSchemaVersions []Version }
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		return Version{}, fmt.Errorf("%s: %w", name, err)
	}
	var newest Version
	for _, p := range answer.Properties {
		for _, v := range p.SupportedSchemaVersions {
			if newest.before(v) {
				newest = v
			}
		}
	}
	return newest, nil
}

// Create makes a VM of a document.
func (windowsHost) Create(id string, document []byte) (System, error) {
	name, err := windows.UTF16PtrFromString(id)
	if err != nil {
		return nil, err
	}
	doc, err := windows.UTF16PtrFromString(string(document))
	if err != nil {
		return nil, err
	}
	s := &system{exited: make(chan string, 1)}
	_, err = operate("HcsCreateComputeSystem", func(op uintptr) uintptr {
		r, _, _ := procCreate.Call(uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(doc)), op, 0, uintptr(unsafe.Pointer(&s.handle)))
		return r
	})
	if err == nil {
		err = s.observe()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Grant lets the VM with an identifier open a file.
func (windowsHost) Grant(id, path string) error {
	name, err := windows.UTF16PtrFromString(id)
	if err != nil {
		return err
	}
	file, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	if err := procGrant.Find(); err != nil {
		return &ServiceError{Call: "HcsGrantVmAccess", Err: ServiceNotAvailable}
	}
	r, _, _ := procGrant.Call(uintptr(unsafe.Pointer(name)), uintptr(unsafe.Pointer(file)))
	return failed("HcsGrantVmAccess", r, "")
}

// consoleTimeout bounds how long the VM's pipe may take to appear after its start.
const consoleTimeout = 5 * time.Second

// OpenConsole opens the pipe that the VM's process serves. Whoever else might serve it learns
// nothing of this process (SECURITY_ANONYMOUS, which is 0).
func (windowsHost) OpenConsole(pipe string) (io.ReadCloser, error) {
	name, err := windows.UTF16PtrFromString(pipe)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(20 * time.Millisecond) { // nothing tells of it
		h, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, windows.FILE_FLAG_OVERLAPPED|windows.SECURITY_SQOS_PRESENT, 0)
		if err == nil {
			return os.NewFile(uintptr(h), pipe), nil
		}
		if time.Since(begin) > consoleTimeout {
			return nil, &os.PathError{Op: "open", Path: pipe, Err: err}
		}
	}
}

// address is that of a vsock port of a VM.
func address(runtimeID string, port uint32) (*winio.HvsockAddr, error) {
	id, err := guid.FromString(runtimeID)
	if err != nil {
		return nil, fmt.Errorf("runtime identifier %q: %w", runtimeID, err)
	}
	return &winio.HvsockAddr{VMID: id, ServiceID: winio.VsockServiceID(port)}, nil
}

// Dial opens a stream.
func (windowsHost) Dial(ctx context.Context, runtimeID string, port uint32) (net.Conn, error) {
	at, err := address(runtimeID, port)
	if err != nil {
		return nil, err
	}
	conn, err := winio.Dial(ctx, at)
	for _, refused := range []error{
		windows.WSAECONNREFUSED, windows.ERROR_CONNECTION_REFUSED, windows.WSAECONNRESET,
		// While the guest has no driver.
		windows.WSAETIMEDOUT, windows.WSAENETUNREACH, windows.WSAEHOSTUNREACH, windows.WSAEADDRNOTAVAIL, windows.ERROR_CONNECTION_UNAVAIL,
	} {
		if errors.Is(err, refused) {
			return nil, fmt.Errorf("%w (%w)", syscall.ECONNREFUSED, err)
		}
	}
	if err != nil {
		return nil, err // and no net.Conn that holds a nil
	}
	return conn, nil
}

// Listen accepts streams.
func (windowsHost) Listen(runtimeID string, port uint32) (net.Listener, error) {
	at, err := address(runtimeID, port)
	if err != nil {
		return nil, err
	}
	l, err := winio.ListenHvsock(at)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// system is a [System].
type system struct {
	mu     sync.RWMutex // held for reading while a call uses the handle
	handle uintptr
	key    uintptr // in observed
	exited chan string
}

// hcsEvent is HCS_EVENT of computedefs.h.
type hcsEvent struct {
	kind      uint32
	data      *uint16
	operation uintptr
}

// Kinds of events.
// https://learn.microsoft.com/virtualization/api/hcs/reference/hcs_event_type
const (
	eventExited     = 1
	eventDisconnect = 0x02000000
)

var (
	observed sync.Map // of *system, by the context of their callbacks
	lastKey  atomic.Uintptr
	// onEvent is one for all VMs: Go never frees a callback.
	onEvent = sync.OnceValue(func() uintptr { return syscall.NewCallback(receiveEvent) })
)

// receiveEvent is called by the service's threads.
func receiveEvent(e *hcsEvent, key uintptr) uintptr {
	v, ok := observed.Load(key)
	if !ok {
		return 0 // it was closed
	}
	status := ""
	switch e.kind {
	case eventExited:
		if e.data != nil {
			status = windows.UTF16PtrToString(e.data)
		}
	case eventDisconnect:
		status = fmt.Sprintf(`{"Status":%d,"ExitType":"UnexpectedExit"}`, int64(ServiceDisconnect)-1<<32)
	default:
		return 0
	}
	select {
	case v.(*system).exited <- status:
	default: // the first counts
	}
	return 0
}

func (s *system) observe() error {
	s.key = lastKey.Add(1)
	observed.Store(s.key, s)
	r, _, _ := procSetCallback.Call(s.handle, 0, s.key, onEvent())
	return failed("HcsSetComputeSystemCallback", r, "")
}

// ask runs an operation on the VM.
func (s *system) ask(name string, proc *windows.LazyProc) (string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.handle == 0 {
		return "", &ServiceError{Call: name, Err: SystemAlreadyStopped}
	}
	return operate(name, func(op uintptr) uintptr { return call(proc, s.handle, op, 0) })
}

func (s *system) RuntimeID() (string, error) {
	text, err := s.ask("HcsGetComputeSystemProperties", procProperties)
	if err != nil {
		return "", err
	}
	var p struct{ RuntimeID string }
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return "", fmt.Errorf("HcsGetComputeSystemProperties: %w", err)
	}
	return p.RuntimeID, nil
}

func (s *system) Start() error          { return s.do("HcsStartComputeSystem", procStart) }
func (s *system) Terminate() error      { return s.do("HcsTerminateComputeSystem", procTerminate) }
func (s *system) Pause() error          { return s.do("HcsPauseComputeSystem", procPause) }
func (s *system) Resume() error         { return s.do("HcsResumeComputeSystem", procResume) }
func (s *system) Exited() <-chan string { return s.exited }

func (s *system) do(name string, proc *windows.LazyProc) error {
	_, err := s.ask(name, proc)
	return err
}

// Close waits for the calls that use the handle.
func (s *system) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	observed.Delete(s.key)
	if s.handle != 0 {
		procClose.Call(s.handle)
		s.handle = 0
	}
}

// computecore.dll, and the function of the size of memory.
var (
	computecore           = windows.NewLazySystemDLL("computecore.dll")
	procCreateOperation   = computecore.NewProc("HcsCreateOperation")
	procCloseOperation    = computecore.NewProc("HcsCloseOperation")
	procWait              = computecore.NewProc("HcsWaitForOperationResult")
	procServiceProperties = computecore.NewProc("HcsGetServiceProperties")
	procEnumerate         = computecore.NewProc("HcsEnumerateComputeSystems")
	procCreate            = computecore.NewProc("HcsCreateComputeSystem")
	procClose             = computecore.NewProc("HcsCloseComputeSystem")
	procSetCallback       = computecore.NewProc("HcsSetComputeSystemCallback")
	procStart             = computecore.NewProc("HcsStartComputeSystem")
	procTerminate         = computecore.NewProc("HcsTerminateComputeSystem")
	procPause             = computecore.NewProc("HcsPauseComputeSystem")
	procResume            = computecore.NewProc("HcsResumeComputeSystem")
	procProperties        = computecore.NewProc("HcsGetComputeSystemProperties")
	procGrant             = computecore.NewProc("HcsGrantVmAccess")
	procInstalledMemory   = windows.NewLazySystemDLL("kernel32.dll").NewProc("GetPhysicallyInstalledSystemMemory")
)

// operationPending says that an operation has begun.
const operationPending Result = 0x80370117

// operate begins an operation and waits for its result document. The functions that begin one
// are of the form HcsVerb(…, operation, …).
func operate(name string, begin func(operation uintptr) uintptr) (string, error) {
	if err := procCreateOperation.Find(); err != nil {
		return "", &ServiceError{Call: name, Err: ServiceNotAvailable}
	}
	op := call(procCreateOperation, 0, 0)
	if op == 0 {
		return "", &ServiceError{Call: name, Err: OutOfMemory}
	}
	defer call(procCloseOperation, op)
	if r := begin(op); Result(r) != operationPending {
		if err := failed(name, r, ""); err != nil {
			return "", err
		}
	}
	var result *uint16
	r, _, _ := procWait.Call(op, windows.INFINITE, uintptr(unsafe.Pointer(&result)))
	text := take(result)
	return text, failed(name, r, text)
}

// call calls a function whose arguments are no pointers of Go's.
func call(proc *windows.LazyProc, args ...uintptr) uintptr {
	r, _, _ := proc.Call(args...)
	return r
}

// failed returns the error of an HRESULT. Its sign bit says that it is one.
func failed(name string, r uintptr, detail string) error {
	if int32(r) >= 0 {
		return nil
	}
	return &ServiceError{Call: name, Err: Result(r), Detail: detail}
}

// take returns a string of the service's, and frees it.
func take(s *uint16) string {
	if s == nil {
		return ""
	}
	defer windows.LocalFree(windows.Handle(unsafe.Pointer(s)))
	return windows.UTF16PtrToString(s)
}
