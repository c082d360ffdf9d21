package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/distrofile"
	"github.com/lsub/lsub/rootfs"
)

// packed returns a tree's archive, and what is noted.
func packed(t *testing.T, dir string) (archive []byte, notes []string) {
	t.Helper()
	send := func(frame []byte) error {
		archive = append(archive, frame[guest.HeaderSize:]...)
		return nil
	}
	if err := Pack(t.Context(), dir, send, func(line string) { notes = append(notes, line) }); err != nil {
		t.Fatal(err)
	}
	return archive, notes
}

// nastyTree makes a tree of everything that a file system can hold, as far as
// that one and the user can.
func nastyTree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(root, name) }
	deep := at(strings.Repeat("a folder with a name/", 20))
	must(errors.Join(os.MkdirAll(at("bin"), 0o755), os.MkdirAll(deep, 0o755), os.Mkdir(at("set"), 0o700)))
	must(os.WriteFile(at("bin/sh"), []byte("#!"), 0o755))
	must(os.WriteFile(at("empty"), nil, 0o400))
	must(os.WriteFile(at("block"), bytes.Repeat([]byte{'b'}, 512), 0o644))
	must(os.WriteFile(at("latin\xe9\xff\n"), []byte("x"), 0o644))
	must(os.WriteFile(filepath.Join(deep, "\xffdeep"), bytes.Repeat([]byte("0123456789abcdef"), 40<<10), 0o644)) // more than a frame
	must(os.Link(at("bin/sh"), at("again")))
	must(os.Link(at("bin/sh"), filepath.Join(deep, "third")))
	must(os.Symlink(strings.Repeat("t/", 2047), at("link")))
	must(os.Link(at("link"), at("link2")))
	must(unix.Mkfifo(at("fifo"), 0o640))
	for _, name := range []string{"holes", "tail", "nothing", "start"} {
		f, err := os.Create(at(name))
		must(err)
		switch name {
		case "holes":
			for i := range int64(50) {
				_, err := f.WriteAt([]byte("island"), i<<20+i)
				must(err)
			}
		case "tail":
			_, err := f.WriteString("data")
			must(err)
		case "start":
			_, err := f.WriteAt([]byte("end"), 5<<20)
			must(err)
		}
		if name != "start" {
			must(f.Truncate(9 << 30))
		}
		must(f.Close())
	}
	for name, value := range map[string]string{"user.plain": "v", "user.a=b%3D": "\x00=\n\xff", "user.none": ""} {
		if err := unix.Setxattr(at("bin/sh"), name, []byte(value), 0); err != nil {
			t.Logf("the file system takes no attributes here: %v", err)
			break
		}
	}
	if os.Geteuid() == 0 {
		must(unix.Mknod(at("null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		must(unix.Mknod(at("whiteout"), unix.S_IFCHR, 0))
		must(unix.Mknod(at("disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(8, 0))))
		must(unix.Mknod(at("memory"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1))))
		must(os.Lchown(at("link"), 3_000_000, 4_294_967_294))
		must(errors.Join(os.Chown(at("empty"), 12, 34), os.Chmod(at("empty"), 0)))
		const none = "\xff\xff\xff\xff"
		acl := "\x02\x00\x00\x00" + "\x01\x00\x07\x00" + none + "\x04\x00\x05\x00" + none + "\x08\x00\x04\x00\x07\x00\x00\x00" +
			"\x10\x00\x05\x00" + none + "\x20\x00\x05\x00" + none // u::rwx,g::r-x,g:7:r--,m::r-x,o::r-x
		for file, name := range map[string]string{"set": "system.posix_acl_default", "bin": "system.posix_acl_access"} {
			if err := unix.Setxattr(at(file), name, []byte(acl), 0); err != nil {
				t.Logf("the file system takes no ACL here: %v", err)
			}
		}
		must(os.WriteFile(at("set/inside"), []byte("i"), 0o644))
		unix.Removexattr(at("set/inside"), "system.posix_acl_access") // inherited; an import must not bring it back
	}
	l, err := net.Listen("unix", at("s")) // short: TempDir's name is long
	if err == nil {
		t.Cleanup(func() { l.Close() })
	} else {
		must(unix.Mknod(at("s"), unix.S_IFSOCK|0o600, 0))
	}
	must(os.Chmod(at("set"), 0o7755))
	must(os.Chmod(at("bin/sh"), 0o6755))
	for name, when := range map[string]time.Time{
		"link": time.Unix(1, 1), "bin/sh": time.Unix(1700000000, 123456789), "empty": time.Unix(-5, 500), "bin": time.Unix(1<<33, 7), ".": time.Unix(1e9, 999999999),
	} {
		ts := unix.Timespec{Sec: when.Unix(), Nsec: int64(when.Nanosecond())}
		must(unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
	}
	return root
}

// What is packed, unpacked and packed again is the same to the last byte; so
// nothing of it is lost on the way.
func TestPackRoundTrip(t *testing.T) {
	tree := nastyTree(t)
	first, notes := packed(t, tree)
	left := strings.Join(notes, "\n")
	want := []string{"/s is left out: a socket"}
	if os.Geteuid() == 0 {
		want = append(want, "/disk is left out: a block device", "/memory is left out: the device 1:1")
	}
	for _, w := range want {
		if !strings.Contains(left, w) {
			t.Errorf("nobody says %q: %s", w, left)
		}
	}
	if len(notes) != len(want) {
		t.Errorf("notes: %s", left)
	}
	copied := t.TempDir()
	if err := Unpack(copied, bytes.NewReader(first), &rootfs.State{}); err != nil {
		t.Fatal(err)
	}
	second, notes := packed(t, copied)
	if len(notes) > 0 {
		t.Errorf("of the copy: %q", notes)
	}
	if !bytes.Equal(first, second) {
		t.Errorf("the copy is another tree:\n%s", diffArchives(t, first, second))
	}
	for _, name := range []string{"holes", "tail", "nothing", "start"} {
		if a, b := blocks(t, filepath.Join(tree, name)), blocks(t, filepath.Join(copied, name)); a != b {
			t.Errorf("%s has %d blocks, and in the copy %d", name, a, b)
		}
	}
	if len(first) > 4<<20 {
		t.Errorf("the archive has %d bytes: the holes are in it", len(first))
	}
}

// blocks is what a file takes of the disk. Before it is there, that is a guess.
func blocks(t *testing.T, name string) int64 {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := errors.Join(f.Sync(), unix.Fstat(int(f.Fd()), &st)); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func diffArchives(t *testing.T, a, b []byte) string {
	lines := func(archive []byte) []string {
		var list []string
		for tr := tar.NewReader(bytes.NewReader(archive)); ; {
			h, err := tr.Next()
			if err != nil {
				return list
			}
			list = append(list, strings.ReplaceAll(strings.TrimSpace(h.Name+" "+h.FileInfo().Mode().String()+" "+h.ModTime.String()), "\n", " ")+formatRecords(h))
		}
	}
	var out []string
	la, lb := lines(a), lines(b)
	for _, l := range la {
		if !slices.Contains(lb, l) {
			out = append(out, "- "+l)
		}
	}
	for _, l := range lb {
		if !slices.Contains(la, l) {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}

func formatRecords(h *tar.Header) string {
	var b strings.Builder
	for k, v := range h.PAXRecords {
		b.WriteString(" " + k + "=" + distrofile.Shown(v))
	}
	return b.String()
}

// A host that is gone ends the walk.
func TestPackStops(t *testing.T) {
	tree := nastyTree(t)
	gone := errors.New("the host is gone")
	if err := Pack(t.Context(), tree, func([]byte) error { return gone }, func(string) {}); !errors.Is(err, gone) {
		t.Errorf("with a stream that fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Pack(ctx, tree, func([]byte) error { return nil }, func(string) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context that has ended: %v", err)
	}
}

// The estimate is near the length of the archive, for trees that have no more
// metadata than data.
func TestEstimate(t *testing.T) {
	tree := nastyTree(t)
	b, _ := packed(t, tree)
	if n := int(Estimate(t.Context(), tree)); n < len(b)/2 || n > 2*len(b) {
		t.Errorf("%d bytes are estimated of %d", n, len(b))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n := Estimate(ctx, tree); n != 0 {
		t.Errorf("without time it is %d", n)
	}
}

func TestUnpackLimit(t *testing.T) {
	if _, err := io.ReadAll(&limited{strings.NewReader("0123456789"), 5, 5}); !errors.As(err, new(*rootfs.LimitError)) {
		t.Errorf("an archive longer than its limit: %v", err)
	}
}
