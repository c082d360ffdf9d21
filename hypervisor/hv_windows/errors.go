package hvwindows

import (
	"errors"
	"fmt"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
)

// Results that mean something to users or to the driver.
// https://learn.microsoft.com/virtualization/api/hcs/reference/hcshresult
const (
	TerminatedDuringStart Result = 0x80370100
	HyperVNotInstalled    Result = 0x80370102
	InvalidState          Result = 0x80370105
	UnexpectedExit        Result = 0x80370106
	InvalidJSON           Result = 0x8037010D
	SystemNotFound        Result = 0x8037010E
	SystemAlreadyExists   Result = 0x8037010F
	SystemAlreadyStopped  Result = 0x80370110
	ServiceNotAvailable   Result = 0x80370114
	OperationTimeout      Result = 0x80370118
	HCSAccessDenied       Result = 0x8037011B
	ServiceDisconnect     Result = 0x8037011E
	// Errors of Windows as HRESULTs.
	// https://learn.microsoft.com/windows/win32/debug/system-error-codes
	FileNotFound         Result = 0x80070002
	AccessDenied         Result = 0x80070005
	NotEnoughMemory      Result = 0x80070008
	OutOfMemory          Result = 0x8007000E
	SharingViolation     Result = 0x80070020
	LockViolation        Result = 0x80070021
	DiskFull             Result = 0x80070070
	PathTooLong          Result = 0x800700CE
	VirusInfected        Result = 0x800700E1
	DisabledByPolicy     Result = 0x800704EC
	NoSystemResources    Result = 0x800705AA
	CommitmentLimit      Result = 0x800705AF
	FileCorrupt          Result = 0x80070570
	ServiceDisabled      Result = 0x80070422
	VirtualDiskCorrupt   Result = 0xC03A0002 // ERROR_VHD_DRIVE_FOOTER_CORRUPT
	VirtualDiskLimit     Result = 0xC03A001A // ERROR_VIRTDISK_... system limitation: compressed, encrypted or sparse
	HypervisorNotPresent Result = 0xC0351000 // ERROR_HYPERVISOR_NOT_PRESENT
)

// resultTexts says what a result is, for those that users meet.
var resultTexts = map[Result]string{
	TerminatedDuringStart: "the VM ended during its start",
	HyperVNotInstalled:    "Hyper-V is not installed",
	InvalidState:          "the VM is in the wrong state for it",
	UnexpectedExit:        "the VM has ended unexpectedly",
	InvalidJSON:           "Windows does not understand the VM's description",
	SystemNotFound:        "there is no such VM",
	SystemAlreadyExists:   "a VM with this identifier exists",
	SystemAlreadyStopped:  "the VM does not run",
	ServiceNotAvailable:   "a feature of Windows is not installed",
	OperationTimeout:      "Windows took too long",
	HCSAccessDenied:       "access denied",
	ServiceDisconnect:     "the service that runs VMs has ended",
	FileNotFound:          "a file is missing",
	AccessDenied:          "access denied",
	NotEnoughMemory:       "not enough memory",
	OutOfMemory:           "not enough memory",
	SharingViolation:      "another program has the file open",
	LockViolation:         "another program has locked the file",
	DiskFull:              "the disk is full",
	PathTooLong:           "the path is too long",
	VirusInfected:         "an antivirus program holds the file back",
	DisabledByPolicy:      "a policy forbids it",
	NoSystemResources:     "not enough memory",
	CommitmentLimit:       "the page file is too small",
	FileCorrupt:           "the file is damaged",
	ServiceDisabled:       "the service that runs VMs is disabled",
	VirtualDiskCorrupt:    "the virtual disk is damaged",
	VirtualDiskLimit:      "the virtual disk is compressed, encrypted or sparse",
	HypervisorNotPresent:  "the hypervisor does not run",
}

// Advice.
const (
	enableFeature = "as administrator, run 'dism /online /enable-feature /featurename:VirtualMachinePlatform /all', then restart Windows"
	joinGroup     = "as administrator, run 'net localgroup \"Hyper-V Administrators\" %USERNAME% /add', then log out of Windows and in again"
	lessMemory    = "give the VM less memory (LSUB_MEMORY, in MiB), or close other programs"
	freeDisk      = "another VM, a backup or an antivirus program has it open; stop that, or leave lsub's folder out of it"
	seeEvents     = "see the event log: Applications and Services Logs, Microsoft, Windows, Hyper-V-Compute"
)

// explain says what an error of Windows means, and what to do about it. It returns other
// errors, and nil, as they are.
func explain(err error) error {
	var r Result
	if !errors.As(err, &r) {
		return err
	}
	say := func(what, advice string) error { return hint.New(fmt.Errorf("%s: %w", what, err), advice) }
	switch r {
	case ServiceNotAvailable, HyperVNotInstalled:
		return say("the feature Virtual Machine Platform is off", enableFeature)
	case HypervisorNotPresent:
		return say("the hypervisor of Windows does not run",
			"switch on virtualization (Intel VT-x or AMD SVM) in the firmware, then run 'bcdedit /set hypervisorlaunchtype auto' as administrator and restart Windows")
	case ServiceDisabled:
		return say("the Hyper-V Host Compute Service is disabled", "as administrator, run 'sc config vmcompute start= demand'")
	case HCSAccessDenied, AccessDenied:
		return say("Windows does not let you run VMs", joinGroup)
	case DisabledByPolicy:
		return say("a policy of this machine forbids VMs", "ask who manages this machine")
	case NotEnoughMemory, OutOfMemory, NoSystemResources:
		return say("not enough memory for the VM", lessMemory)
	case CommitmentLimit:
		return say("not enough memory for the VM", "enlarge the page file of Windows, or "+lessMemory)
	case SharingViolation, LockViolation:
		return hint.New(fmt.Errorf("%w: %w", hypervisor.ErrDiskInUse, err), freeDisk)
	case SystemAlreadyExists:
		return hint.New(fmt.Errorf("%w: the VM before has not ended yet: %w", hypervisor.ErrDiskInUse, err),
			"if it does not end, find it with 'hcsdiag list' and end it with 'hcsdiag kill'")
	case DiskFull:
		return say("the disk of this machine is full", "make room on it")
	case PathTooLong:
		return say("a path is too long for Windows", "move lsub's folder to a shorter path with LSUB_HOME")
	case VirusInfected:
		return say("an antivirus program holds a file of the VM back", "leave lsub's folder out of its scans")
	case VirtualDiskLimit:
		return say("Windows does not take the VM's disk", "switch off compression and encryption of lsub's folder")
	case VirtualDiskCorrupt, FileCorrupt:
		return say("Windows cannot read a disk of the VM", "it may be damaged; restore it from a backup")
	case InvalidJSON:
		return say("Windows does not understand the VM's description", "update Windows: lsub needs version 2004 of Windows 10 or a later one")
	case ServiceDisconnect, TerminatedDuringStart, UnexpectedExit, OperationTimeout:
		return say("the VM service of Windows has failed", seeEvents)
	}
	return err
}

// isWrongState tells whether the VM's state did not allow an operation.
func isWrongState(err error) bool {
	var r Result
	return errors.As(err, &r) && (r == InvalidState || r == SystemAlreadyStopped || r == SystemNotFound)
}
