package machine

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/lsub/lsub/hint"
)

func ownedByUs(string) bool { return true }

// mkdirPrivate makes a directory for the user, the system and administrators, whatever the one
// above it lets in.
func mkdirPrivate(dir string) error {
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("the user's identifier: %w", err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;" + user.User.Sid.String() + ")")
	if err != nil {
		return err
	}
	name, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return err
	}
	sa := &windows.SecurityAttributes{SecurityDescriptor: sd}
	sa.Length = uint32(unsafe.Sizeof(*sa))
	if err := windows.CreateDirectory(name, sa); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// everybody are groups, as in SDDL, that may not enter: everyone, authenticated users, users,
// guests, anonymous, those at the console or on the network.
var everybody = []string{"WD", "AU", "BU", "BG", "AN", "IU", "NU"}

// checkPrivate refuses a directory that somebody else made or may enter: who can write to it
// could put another socket in our place. Those below a user's own directories inherit an access
// list as mkdirPrivate gives it.
func checkPrivate(dir string) error {
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return hint.New(fmt.Errorf("%s is no folder", dir), "remove it")
	}
	sd, err := windows.GetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return fmt.Errorf("who may enter %s: %w", dir, err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("the user's identifier: %w", err)
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return fmt.Errorf("the owner of %s: %w", dir, err)
	}
	// What a process of an administrator makes may belong to their group.
	if !owner.Equals(user.User.Sid) && !owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) {
		return hint.New(fmt.Errorf("%s belongs to another user (%s)", dir, owner), "somebody made it in your place: remove it")
	}
	if open := openTo(sd.String()); open != "" {
		return hint.New(fmt.Errorf("%s is open to other users (%s)", dir, open),
			fmt.Sprintf(`close it with 'icacls "%s" /inheritance:r /grant:r "%%USERNAME%%:(OI)(CI)F"'`, dir))
	}
	return nil
}

// openTo returns an entry of an access list in SDDL that lets others in, "" for none.
func openTo(sddl string) string {
	_, list, ok := strings.Cut(sddl, "D:")
	if !ok || strings.HasPrefix(list, "NO_ACCESS_CONTROL") {
		return "it has no access list"
	}
	for _, ace := range strings.Split(list, "(") {
		fields := strings.Split(strings.TrimRight(ace, ")"), ";")
		if len(fields) < 6 || fields[0] != "A" {
			continue
		}
		for _, group := range everybody {
			if fields[5] == group {
				return "(" + strings.TrimSuffix(ace, ")") + ")"
			}
		}
	}
	return ""
}
