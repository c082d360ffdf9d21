package hvwindows

import (
	"context"
	"fmt"
	"io"
	"net"
)

// Host is what the driver needs of Windows. It is safe for concurrent use.
type Host interface {
	// Facts describes this machine. It fails where the service that runs VMs is not there.
	Facts() (Facts, error)
	// Create makes a VM that does not run yet. It ends when the System is closed, or when this
	// process ends.
	Create(id string, document []byte) (System, error)
	// Grant lets the VM with an identifier open a file.
	Grant(id, path string) error
	// OpenConsole returns what comes out of a serial port of a VM that runs, until it is gone.
	OpenConsole(pipe string) (io.ReadCloser, error)
	// Dial opens a stream to a vsock port of a VM, by its runtime identifier. An error says
	// ECONNREFUSED where nobody listens, and where the guest has no driver yet. It may return
	// long after ctx is done. The stream has CloseWrite.
	Dial(ctx context.Context, runtimeID string, port uint32) (net.Conn, error)
	// Listen accepts the streams that a VM opens to a vsock port of the host.
	Listen(runtimeID string, port uint32) (net.Listener, error)
}

// System is a VM of the Host Compute System. Each method returns when the service has done it.
// Their errors are [Result] where they come from the service.
type System interface {
	// RuntimeID is by what its sockets are addressed: a GUID.
	RuntimeID() (string, error)
	Start() error
	Terminate() error // without asking the guest
	Pause() error
	Resume() error
	// Exited receives the exit document ([exitStatus]) once, when the VM is gone.
	Exited() <-chan string
	// Close lets go of the VM, which ends it. Nothing is sent to Exited afterwards.
	Close()
}

// Facts describe a Windows machine, as far as it matters to VMs.
type Facts struct {
	Arch      string  // GOARCH
	Version   string  // of Windows, as in "10.0.19045"
	Schema    Version // the newest that the service takes
	UserSID   string  // of the user that runs this process
	MaxCPUs   int     // of a VM
	MaxMemory int64   // of a VM, in bytes
}

// Version is that of a document's schema.
// https://learn.microsoft.com/virtualization/api/hcs/schemareference#Version
type Version struct{ Major, Minor uint32 }

// before tells whether v is older than w.
func (v Version) before(w Version) bool {
	return v.Major < w.Major || v.Major == w.Major && v.Minor < w.Minor
}

// Result is an HRESULT that says that something has failed.
type Result uint32

func (r Result) Error() string {
	if text := resultTexts[r]; text != "" {
		return fmt.Sprintf("%s (0x%08X)", text, uint32(r))
	}
	return fmt.Sprintf("Windows reports the error 0x%08X", uint32(r))
}

// ServiceError is the failure of a call of the Host Compute System.
type ServiceError struct {
	Call   string // the function's name
	Err    error  // a [Result]
	Detail string // the result document; "" for none
}

func (e *ServiceError) Error() string {
	if e.Detail != "" {
		return fmt.Sprintf("%s: %v: %s", e.Call, e.Err, e.Detail)
	}
	return fmt.Sprintf("%s: %v", e.Call, e.Err)
}

func (e *ServiceError) Unwrap() error { return e.Err }
