package rootfs

import (
	"archive/tar"
	"path"
	"strings"
	"testing"
)

// model is a tiny file system that unpacks as the package comment requires of the unpacker,
// but follows symbolic links in parent directories as a careless one would. It reports any
// step out of the tree.
type model struct {
	links   map[string]string
	escaped bool
}

func (m *model) resolve(p string) string {
	at := "/root"
	for _, c := range strings.Split(p, "/") {
		at = path.Join(at, c)
		if t, ok := m.links[at]; ok {
			if !path.IsAbs(t) {
				t = path.Join(path.Dir(at), t)
			}
			at = t
		}
		if at != "/root" && !strings.HasPrefix(at, "/root/") {
			m.escaped = true
		}
	}
	return at
}

// FuzzCheckHeader takes lines "type name\x00target" as an archive's entries. All accepted
// entries must stay in the tree.
func FuzzCheckHeader(f *testing.F) {
	f.Add("2a\x00/etc\n0a/passwd\x00")
	f.Add("2a\x00..\n1b\x00a\n0b/x\x00\n5./\x00")
	f.Add("0../x\x00\n0/abs\x00\n1h\x00../y")
	f.Add("5d\x00\n2d/l\x00/\n5d/l\x00\n0d/l/x\x00")
	f.Fuzz(func(t *testing.T, in string) {
		st := State{MaxEntries: 64}
		m := model{links: map[string]string{}}
		for line := range strings.SplitSeq(in, "\n") {
			if line == "" {
				continue
			}
			name, target, _ := strings.Cut(line[1:], "\x00")
			h := &tar.Header{Typeflag: line[0], Name: name, Linkname: target}
			if CheckHeader(h, &st) != nil || h.Typeflag == tar.TypeXGlobalHeader {
				continue
			}
			clean, err := Clean(name)
			if err != nil {
				t.Fatalf("accepted %q, which Clean refuses: %v", name, err)
			}
			at := path.Join("/root", clean)
			m.resolve(path.Dir(clean))
			isLink, to := h.Typeflag == tar.TypeSymlink, target
			if h.Typeflag == tar.TypeLink {
				m.resolve(path.Dir(path.Clean(target)))
				to, isLink = m.links[path.Join("/root", target)]
			}
			if delete(m.links, at); isLink {
				m.links[at] = to
			}
			if m.escaped {
				t.Fatalf("entry %q left the tree in %q", name, in)
			}
		}
	})
}
