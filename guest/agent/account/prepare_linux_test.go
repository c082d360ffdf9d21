package account

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

// newTree makes the files of a small root file system.
func newTree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const passwdText = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/:/usr/sbin/nologin\n"

func TestPrepareDistro(t *testing.T) {
	if os.Getuid() != 0 {
		t.Log("as an ordinary user: the account gets the uid that runs the test")
	}
	uid := max(os.Getuid(), 1)
	dir := newTree(t, map[string]string{
		"etc/passwd": passwdText, "etc/group": "root:x:0:\nsudo:x:27:old\nnogroup:x:65534:\n",
		"etc/shadow": "root:*:1::::::\n", "etc/skel/.profile": "hello", "etc/sudoers.d/README": "",
		"etc/subuid": "old:100000:65536\n", "bin/bash": "",
	})
	if err := Prepare(dir, &guestv1.CreateDistroRequest{User: &guestv1.User{Name: "ann", Uid: uint32(uid)}}); err != nil && os.Getuid() == 0 {
		t.Fatal(err)
	} else if err != nil {
		t.Fatalf("%v (uid %d)", err, uid)
	}
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	if id := strings.TrimSpace(read("etc/machine-id")); len(id) != 32 {
		t.Errorf("machine-id %q", id)
	}
	who, err := Find([]byte(read("etc/passwd")), []byte(read("etc/group")), "ann")
	if err != nil {
		t.Fatal(err)
	}
	if int(who.UID) != uid || who.Home != "/home/ann" || who.Shell != "/bin/bash" || !slices.Contains(who.Groups, 27) {
		t.Errorf("account %+v", who)
	}
	for name, want := range map[string]string{
		"etc/shadow":                "ann:*:",
		"etc/sudoers.d/90-lsub-ann": "NOPASSWD",
		"home/ann/.profile":         "hello",
		"etc/subuid":                "ann:165536:65536",
		"etc/group":                 "sudo:x:27:old,ann",
		"etc/lsub.conf":             "[user]\ndefault=ann\n",
	} {
		if got := read(name); !strings.Contains(got, want) {
			t.Errorf("%s = %q, want it to hold %q", name, got, want)
		}
	}
}

func TestAddAccountTaken(t *testing.T) {
	dir := newTree(t, map[string]string{
		"etc/passwd": passwdText + "ubuntu:x:1000:1000::/home/ubuntu:/bin/sh\n", "etc/group": "ubuntu:x:1000:\nsudo:x:27:\n",
	})
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if os.Getuid() == 0 { // makes a home of another uid
		if err := addAccount(root, "ann", 1000); err != nil {
			t.Fatal(err)
		}
		b, _ := root.ReadFile("etc/passwd")
		if !strings.Contains(string(b), "ann:x:1001:1001:") {
			t.Errorf("passwd: %s", b)
		}
	}
	if err := addAccount(root, "ubuntu", 1000); err != nil {
		t.Fatal(err)
	}
	b, _ := root.ReadFile("etc/group")
	if !strings.Contains(string(b), "sudo:x:27:") || !strings.Contains(string(b), "ubuntu") {
		t.Errorf("group: %s", b)
	}
	for _, bad := range []string{"", "a:b", "../x", "-x", "a b", "0day", strings.Repeat("a", 33), "a\nroot"} {
		if err := addAccount(root, bad, 1000); err == nil {
			t.Errorf("the name %q was accepted", bad)
		}
	}
}

func TestFindAccount(t *testing.T) {
	group := "root:x:0:\nwheel:x:10:root,ann\nann:x:1000:\nbroken\n"
	passwd := passwdText + "ann:x:1000:1000:Ann:/home/ann:\nshort:x\n"
	for user, want := range map[string]uint32{"": 0, "root": 0, "0": 0, "ann": 1000, "1000": 1000, "nobody": 65534} {
		who, err := Find([]byte(passwd), []byte(group), user)
		if err != nil || who.UID != want {
			t.Errorf("findAccount(%q) = %+v, %v", user, who, err)
		}
	}
	for _, user := range []string{"bob", "short", "77"} {
		if _, err := Find([]byte(passwd), []byte(group), user); err == nil {
			t.Errorf("findAccount(%q) found somebody", user)
		}
	}
	if who, err := Find(nil, nil, "root"); err != nil || who.Shell != "/bin/sh" {
		t.Errorf("without a passwd file: %+v, %v", who, err)
	}
	who, _ := Find([]byte(passwd), []byte(group), "ann")
	if !slices.Equal(who.Groups, []uint32{1000, 10}) || who.Shell != "/bin/sh" {
		t.Errorf("ann: %+v", who)
	}
}
