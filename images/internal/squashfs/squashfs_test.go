package squashfs

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lsub/lsub/rootfs/pax"
)

var update = flag.Bool("update", false, "write the golden file anew")

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func writeTar(data []byte, w io.Writer) error {
	img, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	return img.WriteTar(context.Background(), w)
}

// tree describes an image's content, one line for each entry.
func tree(t testing.TB, data []byte, attrs bool) string {
	t.Helper()
	var b bytes.Buffer
	if err := writeTar(data, &b); err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	tr := tar.NewReader(&b)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return lines.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&lines, "%c %04o %d:%d %q", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name)
		if h.Linkname != "" {
			fmt.Fprintf(&lines, " -> %s", h.Linkname)
		}
		if h.Typeflag == tar.TypeChar {
			fmt.Fprintf(&lines, " %d:%d", h.Devmajor, h.Devminor)
		}
		if h.Size > 0 {
			fmt.Fprintf(&lines, " %d %x", h.Size, sum.Sum(nil)[:6])
		}
		for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
			if attrs && strings.HasPrefix(key, "SCHILY.xattr.") {
				v := h.PAXRecords[key]
				fmt.Fprintf(&lines, " %s=%d:%.20q", strings.TrimPrefix(key, "SCHILY.xattr."), len(v), v)
			}
		}
		if h.ModTime.Unix() != 1767323045 {
			fmt.Fprintf(&lines, " %v", h.ModTime)
		}
		lines.WriteByte('\n')
	}
}

func TestImages(t *testing.T) {
	golden := filepath.Join("testdata", "tree.golden")
	got := tree(t, fixture(t, "gzip"), true)
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gzip", "xz", "zstd", "lz4", "plain"} {
		if got := tree(t, fixture(t, name), true); got != string(want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	if got, want := tree(t, fixture(t, "whole"), false), tree(t, fixture(t, "gzip"), false); got != want {
		t.Errorf("without fragments: got\n%s\nwant\n%s", got, want)
	}
}

// TestHoles checks that a file's hole becomes one in the archive.
func TestHoles(t *testing.T) {
	for _, name := range []string{"gzip", "whole"} { // the file ends in a fragment, or in a block
		var b bytes.Buffer
		if err := writeTar(fixture(t, name), &b); err != nil {
			t.Fatal(err)
		}
		r := pax.NewReader(&b)
		for {
			h, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			if h.Name != "./deep/er/hole" {
				if pax.Sparse(h) {
					t.Errorf("%s: %s has holes", name, h.Name)
				}
				continue
			}
			if want := []pax.Extent{{Offset: 16384, Size: 3620}}; h.Size != 20004 || !slices.Equal(r.Extents(), want) {
				t.Errorf("%s: got %d bytes, %v", name, h.Size, r.Extents())
			}
			break
		}
	}
}

func TestUnsupported(t *testing.T) {
	old := fixture(t, "gzip")
	old[28] = 3
	for name, data := range map[string][]byte{"lzo": fixture(t, "lzo"), "version 3": old} {
		if err := writeTar(data, io.Discard); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestLies has one image for each kind of wrong value. They are made from the uncompressed
// one.
func TestLies(t *testing.T) {
	plain := fixture(t, "plain")
	replace := func(old, by string) []byte {
		if len(old) != len(by) || bytes.Count(plain, []byte(old)) != 1 {
			t.Fatalf("%q is there %d times", old, bytes.Count(plain, []byte(old)))
		}
		return bytes.Replace(plain, []byte(old), []byte(by), 1)
	}
	put := func(at int, v any) []byte {
		data := bytes.Clone(plain)
		if _, err := binary.Encode(data[at:], binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
		return data
	}
	entry := func(name string) int { // offset of its entry in the list of its directory
		e := append(binary.LittleEndian.AppendUint16(nil, uint16(len(name)-1)), name...)
		if bytes.Count(plain, e) != 1 {
			t.Fatalf("%q has %d entries", name, bytes.Count(plain, e))
		}
		return bytes.Index(plain, e) - 6
	}
	offset := func(name string) uint16 { return binary.LittleEndian.Uint16(plain[entry(name):]) }
	size := binary.LittleEndian.AppendUint64(nil, 20004)
	huge := bytes.Replace(plain, size, binary.LittleEndian.AppendUint64(nil, 1<<40), 1)
	below := bytes.Replace(plain, size, binary.LittleEndian.AppendUint64(nil, 1<<63), 1)
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"dot dot":             {replace("\x01\x00er", "\x01\x00.."), `is called ".."`},
		"slash":               {replace("\xfflatin", "../xyz"), `is called "../xyz"`},
		"zero":                {replace("\xfflatin", "lat\x00in"), `is called`},
		"directory in itself": {put(entry("er"), offset("deep")), "is in two places"},
		"directory twice":     {put(entry("dev"), offset("bin")), "is in two places"},
		"huge file":           {huge, ""},
		"file below zero":     {below, "more bytes than there are"},
		"inode out":           {put(entry("passwd"), uint16(60000)), "behind the end"},
		"root out":            {put(32, uint64(1<<40)), "lies outside"},
		"root far out":        {put(32, uint64(1<<63)), "lies outside"},
		"root is a file":      {put(32, uint64(offset("sh"))), "root is no directory"},
		"owners out":          {put(48, uint64(1<<63)), "lies outside"},
		"attributes out":      {put(56, uint64(1<<50)), "lies outside"},
		"fragments out":       {put(80, uint64(1<<50)), "lies outside"},
		"no fragments":        {put(16, uint32(0)), "not in its table"},
		"no owners":           {put(26, uint16(0)), "owner 0 is not"},
		"blocks of 4 GiB":     {put(12, uint32(1<<31)), "blocks have"},
		"tables out of order": {put(64, uint64(1<<40)), "outside"},
		"larger than it is":   {put(40, uint64(1<<40)), "unexpected EOF"},
		"empty":               {nil, "unexpected EOF"},
		"no image":            {bytes.Repeat([]byte("x"), 200), "does not start"},
	} {
		w := &limitWriter{left: 1 << 20}
		err := writeTar(tt.data, w)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

var errLimit = errors.New("enough")

// limitWriter takes at most left bytes, as a reader with limits does.
type limitWriter struct{ left int }

func (w *limitWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errLimit
	}
	return len(p), nil
}

// TestDamage truncates an image everywhere and flips bits. The result is an error or an
// archive, never a panic or a file of unchecked length.
func TestDamage(t *testing.T) {
	for _, name := range []string{"gzip", "lz4", "xz", "zstd"} {
		data := fixture(t, name)
		for i := 0; i < len(data); i += 97 {
			if err := writeTar(data[:i], io.Discard); err == nil {
				t.Errorf("%s: cut at %d: no error", name, i)
			}
			bad := bytes.Clone(data)
			bad[i] ^= 0x55
			writeTar(bad, &limitWriter{left: 4 << 20})
		}
	}
}

func TestContext(t *testing.T) {
	data := fixture(t, "gzip")
	img, err := Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := img.WriteTar(ctx, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := img.WriteTar(t.Context(), &limitWriter{left: 5000}); !errors.Is(err, errLimit) {
		t.Errorf("got %v", err)
	}
}

// FuzzImage reads arbitrary bytes as an image. The result is an archive whose names stay
// inside the tree.
func FuzzImage(f *testing.F) {
	for _, name := range []string{"gzip", "xz", "zstd", "lz4", "plain"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b bytes.Buffer
		if err := writeTar(data, io.MultiWriter(&limitWriter{left: 4 << 20}, &b)); err != nil {
			return
		}
		tr := tar.NewReader(&b)
		for {
			h, err := tr.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !filepath.IsLocal(h.Name) {
				t.Fatalf("got the name %q", h.Name)
			}
		}
	})
}
