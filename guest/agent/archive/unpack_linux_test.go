package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/rootfs"
)

// entry is a header with a body.
type entry struct {
	tar.Header
	body string
}

func file(name, body string) entry {
	return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(body))}, body}
}

func dir(name string) entry {
	return entry{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}, ""}
}

func link(kind byte, name, target string) entry {
	return entry{tar.Header{Typeflag: kind, Name: name, Linkname: target, Mode: 0o777}, ""}
}

// system is what makes an archive a root file system.
var system = []entry{dir("bin"), file("bin/sh", "#!")}

func archive(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := e.Header
		h.Uid, h.Gid = os.Getuid(), os.Getgid()
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1e9, 5)
		}
		h.Format = tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestUnpack(t *testing.T) {
	root := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 40<<10) // more than one buffer
	setuid := file("bin/su", "s")
	setuid.Mode = 0o4755
	entries := append(append([]entry{}, system...), dir("./usr"), file("./usr/big", big), setuid,
		link(tar.TypeSymlink, "lib", "usr/lib"), link(tar.TypeLink, "usr/same", "usr/big"),
		file("deep/er/without/folders", "x"), entry{tar.Header{Typeflag: tar.TypeFifo, Name: "fifo", Mode: 0o600}, ""})
	if err := Unpack(root, bytes.NewReader(archive(t, entries...)), &rootfs.State{}); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(filepath.Join(root, "usr/big")); string(b) != big {
		t.Errorf("usr/big has %d bytes, want %d", len(b), len(big))
	}
	if l, _ := os.Readlink(filepath.Join(root, "lib")); l != "usr/lib" {
		t.Errorf("lib points to %q", l)
	}
	one, _ := os.Stat(filepath.Join(root, "usr/big"))
	two, err := os.Stat(filepath.Join(root, "usr/same"))
	if err != nil || !os.SameFile(one, two) {
		t.Errorf("usr/same is no hard link: %v", err)
	}
	if st, err := os.Stat(filepath.Join(root, "bin/su")); err != nil || st.Mode()&fs.ModeSetuid == 0 {
		t.Errorf("bin/su: %v, %v; want setuid", st.Mode(), err)
	}
	for _, name := range []string{"usr", "usr/big", "bin"} {
		if st, err := os.Lstat(filepath.Join(root, name)); err != nil || !st.ModTime().Equal(time.Unix(1e9, 5)) {
			t.Errorf("%s: time %v, %v", name, st.ModTime(), err)
		}
	}
	if st, err := os.Lstat(filepath.Join(root, "fifo")); err != nil || st.Mode()&fs.ModeNamedPipe == 0 {
		t.Errorf("fifo: %v", err)
	}
}

// Archives that lie: each is refused, and nothing outside the directory changes.
func TestUnpackRefuses(t *testing.T) {
	for name, bad := range map[string][]entry{
		"parent":               {file("../evil", "x")},
		"inner parent":         {file("bin/../../evil", "x")},
		"absolute":             {file("/evil", "x")},
		"through a link":       {link(tar.TypeSymlink, "out", "../outside"), file("out/evil", "x")},
		"hard link out":        {link(tar.TypeLink, "evil", "../outside/secret")},
		"hard link absolute":   {link(tar.TypeLink, "evil", "/etc/passwd")},
		"hard link to nothing": {link(tar.TypeLink, "evil", "not/there")},
		"disk":                 {{tar.Header{Typeflag: tar.TypeBlock, Name: "dev/sda", Devmajor: 8}, ""}},
		"memory":               {{tar.Header{Typeflag: tar.TypeChar, Name: "mem", Devmajor: 1, Devminor: 1}, ""}},
		"file over folder":     {dir("x"), file("x/y", ""), file("x", "")},
	} {
		t.Run(name, func(t *testing.T) {
			parent := t.TempDir()
			root, outside := filepath.Join(parent, "root"), filepath.Join(parent, "outside")
			for _, d := range []string{root, outside} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600)
			err := Unpack(root, bytes.NewReader(archive(t, append(append([]entry{}, system...), bad...)...)), &rootfs.State{})
			if err == nil {
				t.Error("accepted")
			}
			checkOutside(t, outside)
			if names, _ := os.ReadDir(parent); len(names) != 2 {
				t.Errorf("the parent folder has %d entries, want 2", len(names))
			}
		})
	}
}

func checkOutside(t *testing.T, outside string) {
	t.Helper()
	names, _ := os.ReadDir(outside)
	if len(names) != 1 {
		t.Errorf("%d files stand outside, want 1", len(names))
	}
	var st unix.Stat_t
	if err := unix.Lstat(filepath.Join(outside, "secret"), &st); err != nil || st.Nlink != 1 {
		t.Errorf("secret: %d links, %v", st.Nlink, err)
	}
}

func TestUnpackCutShort(t *testing.T) {
	whole := archive(t, append(append([]entry{}, system...), file("big", strings.Repeat("x", 4000)))...)
	for _, n := range []int{600, 1700, 3000} {
		if err := Unpack(t.TempDir(), bytes.NewReader(whole[:n]), &rootfs.State{}); err == nil {
			t.Errorf("an archive cut after %d bytes was accepted", n)
		}
	}
	if err := Unpack(t.TempDir(), strings.NewReader(strings.Repeat("no tar ", 200)), &rootfs.State{}); !errors.Is(err, ErrBad) {
		t.Errorf("no archive: %v", err)
	}
	var unusable *rootfs.UnusableError
	if err := Unpack(t.TempDir(), bytes.NewReader(archive(t, file("readme", "hi"))), &rootfs.State{}); !errors.As(err, &unusable) {
		t.Errorf("an archive without a system: %v", err)
	}
}

// Entries that come twice: the last one counts, and no earlier link is followed.
func TestUnpackTwice(t *testing.T) {
	root := t.TempDir()
	entries := append(append([]entry{}, system...),
		file("a", "first"), file("a", "second"),
		link(tar.TypeSymlink, "b", "a"), file("b", "third"),
		link(tar.TypeSymlink, "c", "bin"), dir("c"))
	if err := Unpack(root, bytes.NewReader(archive(t, entries...)), &rootfs.State{}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a": "second", "b": "third"} {
		if b, _ := os.ReadFile(filepath.Join(root, name)); string(b) != want {
			t.Errorf("%s = %q, want %q", name, b, want)
		}
	}
	if st, err := os.Lstat(filepath.Join(root, "c")); err != nil || !st.IsDir() {
		t.Errorf("c is no folder: %v", err)
	}
}

// FuzzUnpack: no bytes make anything outside the directory.
func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, system...))
	f.Add(archive(f, append(append([]entry{}, system...), link(tar.TypeSymlink, "o", ".."), file("o/evil", "x"))...))
	f.Add(archive(f, link(tar.TypeLink, "evil", "../outside/secret")))
	f.Add(archive(f, file("a", "x"), dir("a"), file("a/b", "y"), link(tar.TypeSymlink, "a/c", "/")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 64<<10 {
			return
		}
		parent := t.TempDir()
		root, outside := filepath.Join(parent, "root"), filepath.Join(parent, "outside")
		os.Mkdir(root, 0o755)
		os.Mkdir(outside, 0o755)
		os.WriteFile(filepath.Join(outside, "secret"), []byte("s"), 0o600)
		Unpack(root, bytes.NewReader(b), &rootfs.State{MaxBytes: 1 << 20, MaxEntries: 100})
		checkOutside(t, outside)
		if names, _ := os.ReadDir(parent); len(names) != 2 {
			t.Errorf("the parent folder has %d entries, want 2", len(names))
		}
		makeRemovable(root)
	})
}

// makeRemovable undoes modes that keep an ordinary user from cleaning up.
func makeRemovable(root string) {
	filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			os.Chmod(p, 0o700)
		}
		return nil
	})
}

// Where the file system has no subvolumes, one of an archive is a directory, and
// what marks it does not stay.
func TestUnpackSubvolume(t *testing.T) {
	root := t.TempDir()
	marked := dir("sub")
	marked.PAXRecords = map[string]string{"SCHILY.xattr." + subvolumeMark: "1"}
	twice := append(append([]entry{}, system...), marked, file("sub/file", "x"), marked)
	if err := Unpack(root, bytes.NewReader(archive(t, twice...)), &rootfs.State{}); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(root, "sub/file")); err != nil || string(b) != "x" {
		t.Errorf("%q, %v", b, err)
	}
	if n, err := unix.Getxattr(filepath.Join(root, "sub"), subvolumeMark, nil); err == nil {
		t.Errorf("the mark stays, with %d bytes", n)
	}
}
