package images

import (
	"archive/tar"
	"fmt"
	"io"
	"math"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/wslconf"
)

// Setup is the content of an image's /etc/wsl-distribution.conf, as WSL reads
// it. Name and UID were checked; the image's maker may write anything into the
// rest.
type Setup struct {
	Name     string   `json:"name,omitempty"`     // to give the distro
	Command  string   `json:"command,omitempty"`  // for /bin/sh -c, as root at a terminal, before the first shell
	UID      uint32   `json:"uid,omitempty"`      // of the default user once Command has succeeded; 0: root
	Warnings []string `json:"warnings,omitempty"` // about the file, for the user

	NameWarning string `json:"name_warning,omitempty"` // why the file's name was not used, for users who gave none
}

const (
	setupName = "wsl-distribution.conf"
	setupPath = "etc/" + setupName

	maxSetup      = 64 << 10 // bytes
	maxSetupFiles = 16       // of that name in an archive
	maxSetupLinks = 8        // from one to the next
	maxWarnings   = 10
)

// setupFinder finds /etc/wsl-distribution.conf while an archive is read. On
// some distros it is a link to a file of the same name elsewhere, which may
// come before or after it: so it keeps all that have the name.
type setupFinder struct {
	files map[string][]byte
	links map[string]string // to what name
	large map[string]int64  // bytes
}

// entry looks at an entry that rootfs accepts, with r at its content.
func (f *setupFinder) entry(h *tar.Header, r io.Reader) error {
	name, err := rootfs.Clean(h.Name)
	if err != nil || path.Base(name) != setupName {
		return nil // no entry of the tree's, or none that matters here
	}
	if f.files == nil {
		f.files, f.links, f.large = map[string][]byte{}, map[string]string{}, map[string]int64{}
	}
	// A later entry takes an earlier one's place.
	delete(f.files, name)
	delete(f.links, name)
	delete(f.large, name)
	if len(f.files)+len(f.links)+len(f.large) >= maxSetupFiles && name != setupPath {
		return nil
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		target := h.Linkname
		if !path.IsAbs(target) {
			target = path.Join("/", path.Dir(name), target)
		}
		f.links[name] = path.Clean(target)[1:]
	case tar.TypeLink:
		f.links[name] = path.Clean(h.Linkname)
	case tar.TypeReg, tar.TypeGNUSparse:
		if h.Size > maxSetup {
			f.large[name] = h.Size
			return nil
		}
		f.files[name], err = io.ReadAll(io.LimitReader(r, maxSetup))
	}
	return err
}

// setup reads what was found, after the last entry.
func (f *setupFinder) setup() Setup {
	name := setupPath
	for range maxSetupLinks {
		target, ok := f.links[name]
		if !ok {
			break
		}
		if _, merged := strings.CutPrefix(target, "lib/"); merged && !f.has(target) {
			target = "usr/" + target // /lib is a link in itself
		}
		name = target
	}
	if data, ok := f.files[name]; ok {
		return parseSetup(data)
	}
	var s Setup
	if size := f.large[name]; size > 0 {
		s.Warnings = []string{fmt.Sprintf("/%s is not read: it has %d bytes", setupPath, size)}
	} else if name != setupPath {
		s.Warnings = []string{fmt.Sprintf("/%s is not read: it is a link to %.100q", setupPath, f.links[setupPath])}
	}
	return s
}

func (f *setupFinder) has(name string) bool {
	_, file := f.files[name]
	_, link := f.links[name]
	return file || link
}

// validName is what the name of a distro may be.
var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// parseSetup reads the file. What is WSL's alone (the start menu, its
// terminal) is known and not used.
func parseSetup(data []byte) Setup {
	var s Setup
	entries, problems := wslconf.Parse(data)
	for _, p := range problems {
		s.warn(p.Line, "%s", p.Text)
	}
	for _, e := range entries {
		switch e.Name {
		case "oobe.command":
			if strings.ContainsRune(e.Value, 0) {
				s.warn(e.Line, "oobe.command has a zero byte")
				continue
			}
			s.Command = e.Value
		case "oobe.defaultuid":
			uid, err := strconv.ParseInt(e.Value, 0, 64)
			if err != nil || uid < 0 || uid >= math.MaxUint32 {
				s.warn(e.Line, "oobe.defaultUid %.50q is no number of a user", e.Value)
				continue
			}
			s.UID = uint32(uid)
		case "oobe.defaultname":
			if !validName.MatchString(e.Value) {
				s.NameWarning = inSetup(e.Line, "oobe.defaultName %.50q cannot be the name of a distro", e.Value)
				continue
			}
			s.Name = e.Value
		case "shortcut.enabled", "shortcut.icon", "shortcut.ico", "windowsterminal.enabled", "windowsterminal.profiletemplate":
		default:
			s.warn(e.Line, "unknown key %.50q", e.Name)
		}
	}
	if n := len(s.Warnings); n > maxWarnings {
		s.Warnings = append(s.Warnings[:maxWarnings:maxWarnings], fmt.Sprintf("/%s: and %d more", setupPath, n-maxWarnings))
	}
	return s
}

func (s *Setup) warn(line int, format string, args ...any) {
	s.Warnings = append(s.Warnings, inSetup(line, format, args...))
}

func inSetup(line int, format string, args ...any) string {
	return fmt.Sprintf("/%s, line %d: ", setupPath, line) + fmt.Sprintf(format, args...)
}
