package images

import (
	"archive/tar"
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/lsub/lsub/rootfs"
)

func TestParseSetup(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       Setup
	}{
		{"empty", "", Setup{}},
		{"usual", "[oobe]\ncommand = /usr/libexec/wsl/oobe.sh\ndefaultUid = 1000\ndefaultName = Fedora-42\n\n" +
			"[shortcut]\nenabled = true\nicon = /usr/share/x.ico\n[windowsterminal]\nProfileTemplate = /x.json\n",
			Setup{Name: "Fedora-42", Command: "/usr/libexec/wsl/oobe.sh", UID: 1000}},
		{"hexadecimal", "[oobe]\ndefaultUid = 0x3e8", Setup{UID: 1000}},
		{"bad values", "[oobe]\ndefaultUid = -1\ndefaultName = ../x\ncommand = a\x00b\n", Setup{Warnings: []string{
			`/etc/wsl-distribution.conf, line 2: oobe.defaultUid "-1" is no number of a user`,
			`/etc/wsl-distribution.conf, line 4: oobe.command has a zero byte`},
			NameWarning: `/etc/wsl-distribution.conf, line 3: oobe.defaultName "../x" cannot be the name of a distro`}},
		{"the uid of nobody at all", "[oobe]\ndefaultUid = 4294967295", Setup{Warnings: []string{
			`/etc/wsl-distribution.conf, line 2: oobe.defaultUid "4294967295" is no number of a user`}}},
		{"unknown", "[oobe]\ncomand = x\n[user]\ndefault = ada\nbroken\n", Setup{Warnings: []string{
			"/etc/wsl-distribution.conf, line 5: a setting is written as key = value",
			`/etc/wsl-distribution.conf, line 2: unknown key "oobe.comand"`,
			`/etc/wsl-distribution.conf, line 4: unknown key "user.default"`}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseSetup([]byte(tt.file)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
	if got := parseSetup([]byte(strings.Repeat("x\n", 1000))).Warnings; len(got) != maxWarnings+1 ||
		got[maxWarnings] != "/etc/wsl-distribution.conf: and 990 more" {
		t.Errorf("warnings: %q", got)
	}
}

// setupTar is an archive of a root file system with more entries.
func setupTar(t testing.TB, entries ...any) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body string) {
		h.Size, h.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "./bin/sh"}, "#!")
	for i := 0; i < len(entries); i += 2 {
		switch e := entries[i+1].(type) {
		case string:
			add(tar.Header{Typeflag: tar.TypeReg, Name: entries[i].(string)}, e)
		case tar.Header:
			e.Name = entries[i].(string)
			add(e, "")
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestSetupInArchive(t *testing.T) {
	const conf = "[oobe]\ndefaultName=found\n"
	link := func(target string) tar.Header { return tar.Header{Typeflag: tar.TypeSymlink, Linkname: target} }
	hard := func(target string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Linkname: target} }
	notRead := func(why string) Setup {
		return Setup{Warnings: []string{"/etc/wsl-distribution.conf is not read: " + why}}
	}
	found := Setup{Name: "found"}
	for _, tt := range []struct {
		name    string
		entries []any
		want    Setup
	}{
		{"none", nil, Setup{}},
		{"a file", []any{"./etc/wsl-distribution.conf", conf}, found},
		{"elsewhere only", []any{"./usr/lib/wsl-distribution.conf", conf}, Setup{}},
		{"a link to what follows", []any{"etc/wsl-distribution.conf", link("../usr/lib/wsl-distribution.conf"), "usr/lib/wsl-distribution.conf", conf}, found},
		{"a link to what was before", []any{"usr/lib/wsl-distribution.conf", conf, "etc/wsl-distribution.conf", link("/usr/lib/wsl-distribution.conf")}, found},
		{"a link through a link", []any{"lib", link("usr/lib"), "etc/wsl-distribution.conf", link("../lib/wsl-distribution.conf"), "usr/lib/wsl-distribution.conf", conf}, found},
		{"a hard link", []any{"usr/lib/wsl-distribution.conf", conf, "etc/wsl-distribution.conf", hard("usr/lib/wsl-distribution.conf")}, found},
		{"the last counts", []any{"etc/wsl-distribution.conf", "[oobe]\ndefaultName=first", "etc/wsl-distribution.conf", conf}, found},
		{"replaced by a directory", []any{"etc/wsl-distribution.conf", conf, "etc/wsl-distribution.conf", tar.Header{Typeflag: tar.TypeDir}}, Setup{}},
		{"a link out of the tree", []any{"etc/wsl-distribution.conf", link("../../../../etc/shadow")}, notRead(`it is a link to "etc/shadow"`)},
		{"a link to nothing", []any{"etc/wsl-distribution.conf", link("/x/wsl-distribution.conf")}, notRead(`it is a link to "x/wsl-distribution.conf"`)},
		{"a link to itself", []any{"etc/wsl-distribution.conf", link("wsl-distribution.conf")}, Setup{}},
		{"too large", []any{"etc/wsl-distribution.conf", strings.Repeat("#", maxSetup+1)}, notRead("it has 65537 bytes")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			img, err := pullFile(t, writeFile(t, "named.wsl", setupTar(t, tt.entries...)))
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(img.Setup, tt.want) {
				t.Errorf("got  %+v\nwant %+v", img.Setup, tt.want)
			}
			if want := map[bool]string{true: "found", false: "named"}[tt.want.Name != ""]; img.Distro != want {
				t.Errorf("the distro is called %q, want %q", img.Distro, want)
			}
		})
	}
	many := []any{}
	for i := range 1000 {
		many = append(many, strings.Repeat("d/", i%50)+strings.Repeat("x", i/50+1)+"/wsl-distribution.conf", strings.Repeat("#", 1000))
	}
	var f setupFinder
	s, err := scan(t.Context(), bytes.NewReader(setupTar(t, append(many, "etc/wsl-distribution.conf", conf)...)), "", new(rootfs.State))
	if err != nil || s.setup.Name != "found" {
		t.Errorf("among many: %+v, %v", s, err)
	}
	for i := 0; i < len(many); i += 2 {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: many[i].(string), Size: 1000}
		if err := f.entry(h, strings.NewReader(many[i+1].(string))); err != nil {
			t.Fatal(err)
		}
	}
	if len(f.files) > maxSetupFiles {
		t.Errorf("it keeps %d files", len(f.files))
	}
}

// Whatever an image says, what comes of it is bounded and of the right form.
func FuzzParseSetup(f *testing.F) {
	f.Add([]byte("[oobe]\ncommand = /etc/oobe.sh\ndefaultUid = 1000\ndefaultName = x\n[a]\nb = c\n"))
	f.Add([]byte("[oobe]\ndefaultUid = 0x_1\ndefaultName = \"a\\nb\"\ncommand = \"\\\\\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := parseSetup(data)
		if s.Name != "" && !validName.MatchString(s.Name) || s.UID == 1<<32-1 || strings.ContainsRune(s.Command, 0) || len(s.Command) > len(data) {
			t.Fatalf("%+v", s)
		}
		if len(s.Warnings) > maxWarnings+1 {
			t.Fatalf("%d warnings", len(s.Warnings))
		}
		for _, w := range s.Warnings {
			if len(w) > 400 || strings.ContainsFunc(w, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Fatalf("warning %q", w)
			}
		}
	})
}
