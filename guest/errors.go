package guest

import (
	"errors"
	"syscall"

	"github.com/lsub/lsub/guest/guestv1"
)

// The errors below are said by the agent and by the guest of tests alike, so that tests
// see what users see.

// NoUser says that a distro has no user of a name.
func NoUser(name string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_USER, "root sees the users in the distro's /etc/passwd: add '-u root'", "no user %q in the distro", name)
}

// NoDirectory says that a command cannot start in a directory.
func NoDirectory(dir string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SUCH_DIRECTORY, "give an absolute path, or one that begins with ~/", "no folder %q in the distro", dir)
}

// CommandNotFound says that a distro has no such program; shown is its name for people.
func CommandNotFound(shown string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND, "", "command not found: %s", shown)
}

// EmulatorAdvice is the hint for programs that are for another processor than the VM's.
const EmulatorAdvice = "an emulator in any distro that runs serves all of them: 'apt install qemu-user-static' in one for the VM's own processor"

// NotExecutable says why a file cannot be run in a directory; both are as people read them.
func NotExecutable(file, dir string, why error) error {
	advice := ""
	if errors.Is(why, syscall.ENOEXEC) {
		advice = "if it is for another processor: " + EmulatorAdvice
	}
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_EXECUTABLE, advice, "run %s in %s: %v", file, dir, why)
}

// NotRunning says that a distro does not run, or not for long.
func NotRunning() error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING, "", "the distro does not run")
}

// NoDistro says that the data disk has no files of a distro.
func NoDistro(id string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no files of distro %s", id)
}

// NoImage says that the data disk has no image of an id.
func NoImage(id string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no image %q", id)
}

// NoSnapshot says that the data disk has no snapshot of an id.
func NoSnapshot(id string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NOT_FOUND, "", "the VM has no snapshot %s", id)
}

// DistroExists says that there is a distro of an id.
func DistroExists(id string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS, "", "distro %s exists", id)
}

// DiskFull says that the data disk has no room.
func DiskFull(cause error) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_NO_SPACE, "delete files in distros, or distros with 'lsub unregister'", "the data disk is full: %v", cause)
}

// OtherVersion says that the VM and the command are of two versions.
func OtherVersion(vm, command string) error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_VERSION, "run 'lsub shutdown'; the next command starts the VM with this version",
		"the VM runs lsub %s, this is lsub %s", vm, command)
}

// NothingAsked says that a stream's request asks for nothing.
func NothingAsked() error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the stream asks for nothing")
}

// MadeOfNothing says that a request to make a distro does not say of what.
func MadeOfNothing() error {
	return Errorf(guestv1.ErrorCode_ERROR_CODE_INVALID, "", "the distro is to be made of nothing")
}
