package vz

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// Domains and codes of errors.
// https://developer.apple.com/documentation/virtualization/vzerror/code
const (
	domainVZ    = "VZErrorDomain"
	domainPOSIX = "NSPOSIXErrorDomain" // codes are macOS's errno

	codeInternal      = 1
	codeInvalidConfig = 2
	codeInvalidState  = 3
	codeTransition    = 4
	codeInvalidDisk   = 5
	codeLimitExceeded = 6
	codeOutOfSpace    = 8
	codeNotSupported  = 10

	posixEPERM        = 1
	posixENOMEM       = 12
	posixEACCES       = 13
	posixEBUSY        = 16
	posixENOSPC       = 28
	posixEAGAIN       = 35
	posixECONNRESET   = 54
	posixECONNREFUSED = 61
)

// entitlement is what a program has to be signed with.
const entitlement = "com.apple.security.virtualization"

// Advice.
const (
	lessMemory  = "give the VM less memory (LSUB_MEMORY, in MiB), or close other programs"
	updateMacOS = "update macOS: System Settings, General, Software Update"
	freeDisk    = "another VM or program has the disk open; stop it first"
)

// explain says what an error of the framework means, and what to do about it. It returns
// other errors, and nil, as they are.
func explain(err error) error {
	if errors.Is(err, ErrUnavailable) {
		return hint.New(fmt.Errorf("macOS is too old: %w", err), updateMacOS)
	}
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	text := e.Description + " " + e.Details
	vz := func(code int) bool { return e.Domain == domainVZ && e.Code == code }
	posix := func(codes ...int) bool {
		for _, c := range codes {
			if e.Domain == domainPOSIX && e.Code == c {
				return true
			}
		}
		return false
	}
	switch {
	case hasAny(text, entitlement):
		return hint.New(fmt.Errorf("this lsub is not signed to run VMs: %w", err),
			"sign it with './task sign', which gives it the entitlement "+entitlement)
	case posix(posixEAGAIN) || hasAny(text, "Failed to lock", "storage device attachment is invalid"):
		return hint.New(fmt.Errorf("%w: %w", hypervisor.ErrDiskInUse, err), freeDisk)
	case vz(codeInvalidDisk):
		return hint.New(fmt.Errorf("the framework cannot read a disk image: %w", err), "it may be damaged, or no raw image")
	case vz(codeOutOfSpace) || posix(posixENOSPC):
		return hint.New(fmt.Errorf("the disk of this Mac is full: %w", err), "make room on it")
	case vz(codeLimitExceeded) || posix(posixEBUSY) || hasAny(text, "HV_BUSY"):
		return hint.New(fmt.Errorf("another program has taken the hypervisor: %w", err),
			"quit other programs that run VMs; old ones with a kernel extension keep the hypervisor for themselves")
	case posix(posixENOMEM) || hasAny(text, "HV_NO_RESOURCES", "Cannot allocate memory"):
		return hint.New(fmt.Errorf("not enough memory: %w", err), lessMemory)
	case posix(posixEPERM, posixEACCES) || hasAny(text, "HV_DENIED"):
		return hint.New(fmt.Errorf("macOS does not allow lsub to run VMs: %w", err),
			"a sandbox or a management profile forbids it; start lsub in Terminal, or ask who manages this Mac")
	case vz(codeNotSupported):
		return hint.New(fmt.Errorf("this Mac cannot do it: %w", err), updateMacOS)
	case vz(codeInternal):
		return hint.New(fmt.Errorf("the framework has failed: %w", err),
			`see why with 'log show --last 5m --predicate "subsystem == \"com.apple.Virtualization\""'`)
	}
	return err
}

// isRefused tells whether a stream failed as it does while nobody listens.
func isRefused(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Domain == domainPOSIX && (e.Code == posixECONNRESET || e.Code == posixECONNREFUSED) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.ECONNREFUSED)
}

// isWrongState tells whether the machine's state did not allow an operation.
func isWrongState(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Domain == domainVZ && (e.Code == codeInvalidState || e.Code == codeTransition)
}
