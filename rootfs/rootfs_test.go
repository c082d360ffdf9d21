package rootfs

import (
	"archive/tar"
	"errors"
	"strings"
	"testing"
)

func dir(n string) *tar.Header  { return &tar.Header{Name: n, Typeflag: tar.TypeDir} }
func file(n string) *tar.Header { return &tar.Header{Name: n, Typeflag: tar.TypeReg, Size: 1} }
func sym(n, t string) *tar.Header {
	return &tar.Header{Name: n, Linkname: t, Typeflag: tar.TypeSymlink}
}
func hard(n, t string) *tar.Header {
	return &tar.Header{Name: n, Linkname: t, Typeflag: tar.TypeLink}
}
func dev(n string, typ byte, major, minor int64) *tar.Header {
	return &tar.Header{Name: n, Typeflag: typ, Devmajor: major, Devminor: minor}
}

func TestCheckHeader(t *testing.T) {
	long := strings.Repeat("a", 256)
	tests := []struct {
		name    string
		entries []*tar.Header
		want    string // part of the last entry's error; "": accepted
	}{
		{"a tree", []*tar.Header{dir("./"), dir("./bin/"), file("./bin/sh"), sym("./sbin", "usr/sbin"), hard("./bin/dash", "./bin/sh")}, ""},
		{"without dot", []*tar.Header{dir("bin"), file("bin/sh")}, ""},
		{"dots inside names", []*tar.Header{file("a/..b/c.."), file("...")}, ""},
		{"absolute link target", []*tar.Header{sym("etc/localtime", "/usr/share/zoneinfo/UTC")}, ""},
		{"link out of the tree", []*tar.Header{sym("a", "../../../etc")}, ""},
		{"fifo", []*tar.Header{dev("f", tar.TypeFifo, 0, 0)}, ""},
		{"socket", []*tar.Header{dev("s", 's', 0, 0)}, ""},
		{"null", []*tar.Header{dev("dev/null", tar.TypeChar, 1, 3)}, ""},
		{"ptmx", []*tar.Header{dev("dev/ptmx", tar.TypeChar, 5, 2)}, ""},
		{"global header", []*tar.Header{{Typeflag: tar.TypeXGlobalHeader, Name: "/../x"}}, ""},
		{"hard link to a symlink", []*tar.Header{sym("a", "/etc"), hard("b", "a")}, ""},
		{"link replaced by a directory", []*tar.Header{sym("a", "/etc"), dir("a"), file("a/b")}, ""},

		{"no name", []*tar.Header{file("")}, "has no name"},
		{"absolute", []*tar.Header{file("/etc/passwd")}, "absolute name"},
		{"dot dot", []*tar.Header{file("../x")}, `".."`},
		{"dot dot inside", []*tar.Header{file("a/../../x")}, `".."`},
		{"dot dot that stays", []*tar.Header{file("a/../b")}, `".."`},
		{"zero byte", []*tar.Header{file("a\x00b")}, "zero byte"},
		{"long component", []*tar.Header{file(long)}, "too long"},
		{"long path", []*tar.Header{file(strings.Repeat("abcdefg/", 512))}, "too long"},
		{"root is a file", []*tar.Header{file("./.")}, "root directory"},
		{"through a link", []*tar.Header{sym("a", "/etc"), file("a/passwd")}, `symbolic link "a"`},
		{"through a link, deeper", []*tar.Header{sym("x/a", ".."), file("x/a/b/c")}, `symbolic link "x/a"`},
		{"through a link's hard link", []*tar.Header{sym("a", "/etc"), hard("b", "a"), file("b/passwd")}, `symbolic link "b"`},
		{"link to nothing", []*tar.Header{sym("a", "")}, "valid target"},
		{"hard link up", []*tar.Header{hard("a", "../x")}, "out of the tree"},
		{"hard link absolute", []*tar.Header{hard("a", "/etc/shadow")}, "out of the tree"},
		{"hard link to the root", []*tar.Header{hard("a", ".")}, "out of the tree"},
		{"hard link through a link", []*tar.Header{sym("e", "/etc"), hard("a", "e/shadow")}, "behind the symbolic link"},
		{"hard link to itself", []*tar.Header{hard("a", "./a")}, "to itself"},
		{"block device", []*tar.Header{dev("dev/sda", tar.TypeBlock, 8, 0)}, "block device 8:0"},
		{"memory", []*tar.Header{dev("dev/null", tar.TypeChar, 1, 1)}, "character device 1:1"},
		{"whiteout", []*tar.Header{dev("bin", tar.TypeChar, 0, 0)}, ""},
		{"whiteout's neighbour", []*tar.Header{dev("bin", tar.TypeChar, 0, 1)}, "character device 0:1"},
		{"unknown type", []*tar.Header{dev("x", 'Z', 0, 0)}, "unknown type"},
		{"owner", []*tar.Header{{Name: "x", Typeflag: tar.TypeReg, Uid: 1<<32 - 1}}, "owner"},
		{"negative owner", []*tar.Header{{Name: "x", Typeflag: tar.TypeReg, Gid: -1}}, "owner"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var st State
			for i, h := range tt.entries {
				err := CheckHeader(h, &st)
				if i < len(tt.entries)-1 || tt.want == "" {
					if err != nil {
						t.Fatalf("entry %d: %v", i, err)
					}
					continue
				}
				var ee *EntryError
				if !errors.As(err, &ee) || !strings.Contains(err.Error(), tt.want) {
					t.Fatalf("got error %v, want one with %q", err, tt.want)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	st := State{MaxBytes: 2, MaxEntries: 3}
	for range 2 {
		if err := CheckHeader(file("a"), &st); err != nil {
			t.Fatal(err)
		}
	}
	var le *LimitError
	if err := CheckHeader(file("a"), &st); !errors.As(err, &le) || le.What != "bytes" {
		t.Errorf("got %v, want a limit of bytes", err)
	}
	if err := CheckHeader(dir("a"), &st); !errors.As(err, &le) || le.What != "entries" {
		t.Errorf("got %v, want a limit of entries", err)
	}
	st = State{}
	huge := file("a")
	huge.Size = 1<<63 - 1
	if err := CheckHeader(huge, &st); !errors.As(err, &le) {
		t.Errorf("got %v, want a limit", err)
	}
}

func TestFinish(t *testing.T) {
	tests := []struct {
		names []string
		want  string
	}{
		{nil, "empty"},
		{[]string{"./", "etc/passwd", "bin/sh"}, ""},
		{[]string{"usr/lib/systemd/systemd"}, ""},
		{[]string{"etc/passwd", "usr/x"}, "neither"},
		{[]string{"debian/", "debian/bin/sh"}, `directory "debian"`},
		{[]string{"etc/", "etc/passwd"}, "neither"},
		{[]string{"oci-layout", "index.json", "blobs/"}, "saved container image"},
	}
	for _, tt := range tests {
		var st State
		for _, n := range tt.names {
			h := file(n)
			if strings.HasSuffix(n, "/") {
				h = dir(n)
			}
			if err := CheckHeader(h, &st); err != nil {
				t.Fatal(err)
			}
		}
		err := st.Finish()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%v: got %v, want %q", tt.names, err, tt.want)
		}
	}
}

func TestLongNamesAreShortened(t *testing.T) {
	err := CheckHeader(file("/"+strings.Repeat("x", 5000)+"\x1b[2J"), &State{})
	if len(err.Error()) > 300 || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("error would fill the terminal: %q", err)
	}
}
