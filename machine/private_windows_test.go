package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/lsub/lsub/hint"
)

// TestPrivate makes a private directory in one that is open, and opens it.
func TestPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "private")
	for range 2 { // made, and found
		if err := MakePrivate(dir); err != nil {
			t.Fatal(err)
		}
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;OICI;FA;;;WD)")
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(dir, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, list, nil); err != nil {
		t.Fatal(err)
	}
	if err := MakePrivate(dir); err == nil || !strings.Contains(err.Error(), "open to other users") || !strings.Contains(hint.Of(err), "icacls") {
		t.Errorf("an open directory: %v (hint: %s)", err, hint.Of(err))
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := MakePrivate(file); err == nil {
		t.Error("a file was taken for a folder")
	}
}

func TestOpenTo(t *testing.T) {
	for sddl, want := range map[string]string{
		"O:S-1-5-21-1D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;S-1-5-21-1)": "",
		"O:S-1-5-21-1D:AI(A;OICIID;FA;;;SY)(A;OICIID;0x1200a9;;;BU)":              "(A;OICIID;0x1200a9;;;BU)",
		"D:(D;;FA;;;WD)(A;;FA;;;SY)":                                              "",
		"D:(A;;FA;;;WD)":                                                          "(A;;FA;;;WD)",
		"O:S-1-5-21-1":                                                            "it has no access list",
		"D:NO_ACCESS_CONTROL":                                                     "it has no access list",
	} {
		if got := openTo(sddl); got != want {
			t.Errorf("%s: %q, want %q", sddl, got, want)
		}
	}
}
