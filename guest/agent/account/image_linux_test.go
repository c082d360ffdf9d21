package account

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

func TestFindDefaultUser(t *testing.T) {
	passwd := []byte("root:x:0:0:root:/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/ash\n")
	group := []byte("root:x:0:\nwheel:x:10:ann\nann:x:1000:\n")
	for user, want := range map[string]Account{
		"":          {Name: "root", Home: "/root", Shell: "/bin/sh", Groups: []uint32{0}},
		"ann":       {Name: "ann", UID: 1000, GID: 1000, Home: "/home/ann", Shell: "/bin/ash", Groups: []uint32{1000, 10}},
		"1000":      {Name: "ann", UID: 1000, GID: 1000, Home: "/home/ann", Shell: "/bin/ash", Groups: []uint32{1000, 10}},
		"1000:":     {Name: "ann", UID: 1000, GID: 1000, Home: "/home/ann", Shell: "/bin/ash", Groups: []uint32{1000, 10}},
		"ann:wheel": {Name: "ann", UID: 1000, GID: 10, Home: "/home/ann", Shell: "/bin/ash", Groups: []uint32{10}},
		"65532":     {Name: "65532", UID: 65532, Home: "/", Shell: "/bin/sh", Groups: []uint32{0}},
		"77:10":     {Name: "77", UID: 77, GID: 10, Home: "/", Shell: "/bin/sh", Groups: []uint32{10}},
		"77:4711":   {Name: "77", UID: 77, GID: 4711, Home: "/", Shell: "/bin/sh", Groups: []uint32{4711}},
	} {
		who, err := findImageUser(passwd, group, user)
		if err != nil {
			t.Errorf("findDefaultUser(%q): %v", user, err)
			continue
		}
		if who.Name != want.Name || who.UID != want.UID || who.GID != want.GID || who.Home != want.Home ||
			who.Shell != want.Shell || !slices.Equal(who.Groups, want.Groups) {
			t.Errorf("findDefaultUser(%q) = %+v, want %+v", user, who, want)
		}
	}
	for _, user := range []string{"bob", "ann:bob", "77:bob", ":10x", "-1", "4294967295", "4294967296", "0x10", "ann:-1"} {
		if who, err := findImageUser(passwd, group, user); err == nil {
			t.Errorf("findDefaultUser(%q) = %+v", user, who)
		}
	}
}

func TestWriteImageEnv(t *testing.T) {
	const profile = "# PATH of the container image that this distro was made of\nPATH='/go/bin:/a'\\''b'\nexport PATH\n"
	for _, tt := range []struct {
		name, before string
		env          []string
		want         string
		profile      string
	}{
		{"nothing", "", nil, "", ""},
		{"nothing new", "LANG=C\n", []string{"HOME=/x", "TERM=xterm"}, "LANG=C\n", ""},
		{"usual", "", []string{"PATH=/go/bin:/a'b", "GO=1"}, "PATH=\"/go/bin:/a'b\"\nGO=\"1\"\n", profile},
		{"behind what is there", "LANG=C", []string{"A=b c", "EMPTY="}, "LANG=C\nA=\"b c\"\nEMPTY=\"\"\n", ""},
		{"what a file cannot hold", "", []string{"A=1\n2", "=x", "B", "1C=x", "D E=x", "F=\x00", "G=\"'"}, "G=\"\"'\"\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			files := map[string]string{}
			if tt.before != "" {
				files["etc/environment"] = tt.before
			}
			root, err := os.OpenRoot(newTree(t, files))
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			var env [][]byte
			for _, e := range tt.env {
				env = append(env, []byte(e))
			}
			if err := writeImageEnv(root, env); err != nil {
				t.Fatal(err)
			}
			got, _ := root.ReadFile("etc/environment")
			script, _ := root.ReadFile(profileScript)
			if string(got) != tt.want || string(script) != tt.profile {
				t.Errorf("environment %q, want %q; profile %q, want %q", got, tt.want, script, tt.profile)
			}
		})
	}
}

// What an image may have in the files' place does no harm.
func TestWriteImageEnvHostile(t *testing.T) {
	root, err := os.OpenRoot(newTree(t, map[string]string{"etc/x": ""}))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	out := filepath.Join(t.TempDir(), "out")
	if err := errors.Join(root.Symlink(out, "etc/environment"), root.Mkdir("etc/profile.d", 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root.Name(), profileScript), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := writeImageEnv(root, [][]byte{[]byte("PATH=/x")}); err != nil {
		t.Fatal(err)
	}
	if b, err := root.ReadFile("etc/environment"); string(b) != "PATH=\"/x\"\n" {
		t.Errorf("environment %q, %v", b, err)
	}
	if distrofile.Exists(out) {
		t.Error("it wrote out of the tree")
	}
	if err := errors.Join(root.Remove("etc/environment"), root.WriteFile("etc/environment", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(root.Name(), "etc/environment"), 1<<40); err != nil {
		t.Fatal(err)
	}
	if err := writeImageEnv(root, [][]byte{[]byte("PATH=/x")}); err == nil {
		t.Error("it read a terabyte")
	}
}

func TestUnquote(t *testing.T) {
	for value, want := range map[string]string{
		"": "", "a": "a", `"`: `"`, `""`: "", `"a b"`: "a b", `'a'`: "a", `"'a'"`: "'a'", `"a'`: `"a'`, `a"`: `a"`,
	} {
		if got := unquote(value); got != want {
			t.Errorf("unquote(%q) = %q, want %q", value, got, want)
		}
	}
}
