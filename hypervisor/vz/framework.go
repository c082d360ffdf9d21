package vz

import (
	"errors"
	"fmt"
	"net"
)

// Framework is what the driver needs of Virtualization.framework. It is safe for concurrent
// use.
type Framework interface {
	// Facts describes this Mac.
	Facts() Facts
	// Check has the framework validate a small VM, which finds a program that may not run any.
	Check() error
	// NewMachine makes a VM that does not run yet. It fails with what the framework finds
	// wrong with the settings. It takes over the card's file, also when it fails.
	NewMachine(s *Settings) (Machine, error)
}

// Machine is a VM of the framework (VZVirtualMachine). Errors of its methods are [*Error]
// where they come from the framework.
type Machine interface {
	Power
	Sockets
	Memory
	// States receives each new state. It is never closed.
	States() <-chan State
}

// Power changes a machine's state. Each method returns when the framework has done it.
type Power interface {
	Start() error
	Stop() error // without asking the guest
	Pause() error
	Resume() error
}

// Sockets is a machine's vsock device (VZVirtioSocketDevice).
type Sockets interface {
	// Connect opens a stream to the guest. It has no deadline, and before the guest has
	// loaded its driver it fails as if nobody listened. The stream may lack CloseWrite.
	Connect(port uint32) (net.Conn, error)
	// Listen takes the streams to a port of the host from whoever had them. Close may leave
	// an Accept waiting for ever.
	Listen(port uint32) (net.Listener, error)
}

// Memory is a machine's balloon (VZVirtioTraditionalMemoryBalloonDevice).
type Memory interface {
	// SetMemory asks the guest to make do with size bytes.
	SetMemory(size uint64)
}

// Saving is implemented by a [Machine] whose state can be saved: on Apple silicon, with
// macOS 14.
type Saving interface {
	// Save writes the state of a paused machine to a file.
	Save(path string) error
	// Restore takes the place of Start. The machine is paused then.
	Restore(path string) error
	// Identifier is what Settings.MachineIdentifier has to be for Restore.
	Identifier() []byte
}

// State is a VZVirtualMachineState.
// https://developer.apple.com/documentation/virtualization/vzvirtualmachine/state-swift.enum
type State int

// The states, with Apple's numbers.
const (
	StateStopped State = iota
	StateRunning
	StatePaused
	StateError
	StateStarting
	StatePausing
	StateResuming
	StateStopping
	StateSaving
	StateRestoring
)

// String is the state's name in Apple's documentation.
func (s State) String() string {
	names := []string{"stopped", "running", "paused", "error", "starting", "pausing", "resuming", "stopping", "saving", "restoring"}
	if s < 0 || int(s) >= len(names) {
		return fmt.Sprintf("state %d", int(s))
	}
	return names[s]
}

// Error is an NSError: what the framework says of a failure.
type Error struct {
	Domain      string
	Code        int
	Description string // for people, in the language of the system
	Details     string // the dictionary userInfo, as text
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s (%s, code %d)", e.Description, e.Domain, e.Code)
}

// ErrUnavailable is the error of a [Framework] whose macOS lacks a feature.
var ErrUnavailable = errors.New("this version of macOS lacks it")
