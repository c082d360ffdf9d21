package pax

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// item is an entry with what its extents hold.
type item struct {
	h    tar.Header
	data []Extent
	body string // of all extents
}

// nasty are entries that a plain header has no room for.
func nasty() []item {
	at := time.Unix(1700000000, 123456789)
	deep := strings.Repeat("a directory of some length/", 40)
	return []item{
		{h: tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o1755, Uid: 12, Gid: 34, ModTime: at}},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./plain", Mode: 0o6711, Size: 5, ModTime: time.Unix(1, 0)}, body: "hello"},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./empty", ModTime: time.Unix(0, 0)}},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./latin\xe9\xff\n\"", Size: 1, ModTime: at}, body: "x"},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./" + deep + "\xff", Size: 1, ModTime: time.Unix(-2, 5e8)}, body: "y"},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./" + strings.Repeat("p", 80) + "/" + strings.Repeat("n", 100), Uid: 1 << 22, Gid: 1<<32 - 2, ModTime: time.Unix(1<<34, 0)}},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./" + strings.Repeat("n", 255), ModTime: time.Unix(-5, 0)}},
		{h: tar.Header{Typeflag: tar.TypeSymlink, Name: "./link", Linkname: strings.Repeat("t/", 2000), Mode: 0o777, ModTime: at}},
		{h: tar.Header{Typeflag: tar.TypeLink, Name: "./again", Linkname: "./" + deep + "\xff", ModTime: at}},
		{h: tar.Header{Typeflag: tar.TypeChar, Name: "./null", Mode: 0o666, Devmajor: 1, Devminor: 3, ModTime: at}},
		{h: tar.Header{Typeflag: tar.TypeFifo, Name: "./fifo", Mode: 0o600, ModTime: at}},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./attributes", Size: 3, ModTime: at, PAXRecords: map[string]string{
			XattrRecord("user.a=b%"): "v", XattrRecord("security.capability"): "\x01\x00\x00\x02\n=\x00", XattrRecord("user.none"): "",
		}}, body: "abc"},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./sparse/f\xe9", Size: 3 << 30, Mode: 0o600, ModTime: at},
			data: []Extent{{0, 3}, {4096, 4}, {3<<30 - 1, 1}}, body: "onefourz"},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./hole", Size: 9 << 30, ModTime: at}, data: []Extent{}},
		{h: tar.Header{Typeflag: tar.TypeReg, Name: "./tail", Size: 8192, ModTime: at}, data: []Extent{{0, 2}}, body: "hi"},
	}
}

func write(t testing.TB, items []item) []byte {
	t.Helper()
	var b []byte
	for _, it := range items {
		var err error
		if b, err = AppendHeader(b, &it.h, it.data); err != nil {
			t.Fatal(err)
		}
		b = AppendPadding(append(b, it.body...), int64(len(it.body)))
	}
	return AppendEnd(b)
}

// same tells headers apart by what belongs to a file.
func same(t *testing.T, got, want *tar.Header) {
	t.Helper()
	pick := func(h *tar.Header) map[string]any {
		return map[string]any{
			"type": h.Typeflag, "name": h.Name, "link": h.Linkname, "mode": h.Mode, "uid": h.Uid, "gid": h.Gid, "size": h.Size,
			"time": h.ModTime.UnixNano(), "major": h.Devmajor, "minor": h.Devminor, "xattrs": Xattrs(h),
		}
	}
	if diff := cmp.Diff(pick(want), pick(got)); diff != "" {
		t.Errorf("%.80q (-want +got):\n%s", want.Name, diff)
	}
}

func TestRoundTrip(t *testing.T) {
	items := nasty()
	r := NewReader(bytes.NewReader(append(write(t, items), "what follows"...)))
	for _, it := range items {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("before %.80q: %v", it.h.Name, err)
		}
		same(t, h, &it.h)
		want := it.data
		if want == nil && it.h.Size > 0 {
			want = []Extent{{0, it.h.Size}}
		}
		if len(want)+len(r.Extents()) > 0 && !cmp.Equal(r.Extents(), want) {
			t.Errorf("%.80q: extents %v, want %v", it.h.Name, r.Extents(), want)
		}
		if b, err := io.ReadAll(r); string(b) != it.body || err != nil {
			t.Errorf("%.80q: data %q, %v", it.h.Name, b, err)
		}
		if Sparse(h) != (it.data != nil) {
			t.Errorf("%.80q: sparse is %v", it.h.Name, Sparse(h))
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if err := r.Rest(); err != nil {
		t.Error(err)
	}
}

// archive/tar reads the same of what we write, holes as zeros.
func TestReadByArchiveTar(t *testing.T) {
	items := nasty()
	tr := tar.NewReader(bytes.NewReader(write(t, items)))
	for _, it := range items {
		h, err := tr.Next()
		if err != nil {
			t.Fatalf("before %.80q: %v", it.h.Name, err)
		}
		same(t, h, &it.h)
		if it.h.Size < 1<<20 {
			want := make([]byte, it.h.Size)
			at := 0
			for _, e := range it.data {
				at += copy(want[e.Offset:e.Offset+e.Size], it.body[at:])
			}
			if it.data == nil {
				copy(want, it.body)
			}
			if b, err := io.ReadAll(tr); !bytes.Equal(b, want) || err != nil {
				t.Errorf("%.80q: data %q, %v", it.h.Name, b, err)
			}
		}
	}
	if _, err := tr.Next(); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
}

func TestRefuses(t *testing.T) {
	for _, h := range []tar.Header{
		{Name: ""}, {Name: "a\x00b"}, {Name: "a", Size: -1}, {Name: "a", Uid: -1}, {Name: "a", Linkname: "\x00"},
	} {
		if b, err := AppendHeader(nil, &h, nil); err == nil {
			t.Errorf("%+v gives %d bytes", h, len(b))
		}
	}
	h := tar.Header{Name: "a", PAXRecords: map[string]string{XattrRecord("user.a"): strings.Repeat("x", MaxRecords)}}
	if _, err := AppendHeader(nil, &h, nil); !errors.Is(err, ErrTooMuch) {
		t.Errorf("attributes without an end: %v", err)
	}
}

// GNU tar writes sparse files in four forms, which all read the same; and it
// reads ours.
func TestGNUTar(t *testing.T) {
	gnu, err := exec.LookPath("tar")
	if out, verr := exec.Command("tar", "--version").Output(); err != nil || verr != nil || !strings.Contains(string(out), "GNU") {
		t.Skip("needs GNU tar")
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "islands"))
	if err != nil {
		t.Fatal(err)
	}
	const size = 40 << 20
	for i := range 30 { // more than a header and one block hold
		if _, err := f.WriteAt([]byte{byte('a' + i)}, int64(i)<<20); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	want, _ := os.ReadFile(f.Name())
	for _, form := range [][]string{
		{"--format=gnu"}, {"--format=pax", "--sparse-version=0.0"}, {"--format=pax", "--sparse-version=0.1"}, {"--format=pax", "--sparse-version=1.0"},
	} {
		out, err := exec.Command(gnu, append(form, "-S", "-C", dir, "-cf", "-", "islands")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		r := NewReader(bytes.NewReader(out))
		h, err := r.Next()
		if err != nil || h.Name != "islands" || h.Size != size || len(r.Extents()) < 30 {
			t.Errorf("%v: %+v, %d extents, %v", form, h, len(r.Extents()), err)
			continue
		}
		got := make([]byte, size)
		for _, e := range r.Extents() {
			if _, err := io.ReadFull(r, got[e.Offset:e.Offset+e.Size]); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%v: other bytes", form)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("%v: at the end: %v", form, err)
		}
	}

	var names []string
	for _, it := range nasty() {
		names = append(names, it.h.Name)
	}
	cmd := exec.Command(gnu, "--quoting-style=literal", "--show-transformed-names", "-tf", "-")
	cmd.Stdin = bytes.NewReader(write(t, nasty()))
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if got := string(out); err != nil || got != strings.Join(names, "\n")+"\n" {
		t.Errorf("GNU tar lists %q, %v: %s", got, err, &complaints)
	}
}

// FuzzReader: it never panics, and where archive/tar takes an archive too, both
// find the same in it.
func FuzzReader(f *testing.F) {
	f.Add(write(f, nasty()))
	f.Add(write(f, nasty()[:3]))
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, format := range []tar.Format{tar.FormatGNU, tar.FormatPAX, tar.FormatUSTAR} {
		w.WriteHeader(&tar.Header{Name: strings.Repeat("long/", 30), Format: format, Typeflag: tar.TypeDir})
		w.WriteHeader(&tar.Header{Name: "f", Size: 3, Format: format})
		w.Write([]byte("abc"))
	}
	w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, tr := NewReader(bytes.NewReader(b)), tar.NewReader(bytes.NewReader(b))
		for {
			h, err := r.Next()
			th, terr := tr.Next()
			if err != nil || terr != nil {
				return
			}
			if h.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			if h.Name != th.Name || h.Typeflag != th.Typeflag || h.Size != th.Size || h.Linkname != th.Linkname {
				t.Fatalf("entry %+v, by archive/tar %+v", h, th)
			}
			if h.Size > 1<<20 {
				continue
			}
			want, terr := io.ReadAll(tr)
			got := make([]byte, max(h.Size, 0))
			for _, e := range r.Extents() {
				if _, err := io.ReadFull(r, got[e.Offset:e.Offset+e.Size]); err != nil {
					return
				}
			}
			if terr == nil && h.Typeflag == tar.TypeReg && !bytes.Equal(got, want) {
				t.Fatalf("%s: %q, by archive/tar %q", h.Name, got, want)
			}
		}
	})
}
