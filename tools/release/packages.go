package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/goreleaser/nfpm/v2"
	"github.com/goreleaser/nfpm/v2/deb"
	"github.com/goreleaser/nfpm/v2/files"
	"github.com/goreleaser/nfpm/v2/rpm"
)

// Words about lsub for package managers.
const (
	homepage    = "https://github.com/lsub/lsub"
	maintainer  = "lsub developers <lsub@users.noreply.github.com>"
	license     = "Apache-2.0"
	summary     = "Linux distros in one light VM"
	description = `Runs real Linux distros, such as Debian, Fedora and Alpine, side by side in
one utility VM that starts in a blink. Each distro has its own systemd,
users and files; they share a kernel, the network and folders of the host.`
)

// qemu is what lsub needs on Linux, by GOARCH: Debian's package, and the program, which Fedora
// and openSUSE have in packages of different names.
var qemu = map[string]struct{ pkg, program string }{
	"amd64": {"qemu-system-x86", "/usr/bin/qemu-system-x86_64"},
	"arm64": {"qemu-system-arm", "/usr/bin/qemu-system-aarch64"},
}

// lintianOverrides are findings that are so on purpose.
const lintianOverrides = `# Go links programs statically, and the guest is inside.
lsub: statically-linked-binary [usr/bin/lsub]
# Its makers do not upload it to Debian.
lsub: initial-upload-closes-no-bugs *
`

// linuxPackages makes the packages for Debian and for RPM.
func (r *releaser) linuxPackages(program, manual string, t target) error {
	work, err := os.MkdirTemp("", "release")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	texts, err := r.packageTexts(work, manual)
	if err != nil {
		return err
	}
	at := func(source, destination string, mode os.FileMode, kind string) *files.Content {
		return &files.Content{Source: source, Destination: destination, Type: kind, FileInfo: &files.ContentFileInfo{Owner: "root", Group: "root", Mode: mode, MTime: r.at}}
	}
	completion := func(shell, destination string) *files.Content {
		return at(filepath.Join(r.dir, completions, "lsub."+shell), destination, 0o644, "")
	}
	all := files.Contents{
		at(program, "/usr/bin/lsub", 0o755, ""),
		completion("bash", "/usr/share/bash-completion/completions/lsub"),
		completion("fish", "/usr/share/fish/vendor_completions.d/lsub.fish"),
	}
	for _, p := range []struct {
		suffix   string
		packager nfpm.Packager
		license  string // Debian has it in the copyright file alone
		needs    string
		content  files.Contents
	}{
		{".deb", deb.Default, "", qemu[t.arch].pkg + " (>= 1:7.2)", files.Contents{
			at(texts.copyright, "/usr/share/doc/lsub/copyright", 0o644, ""),
			at(texts.changes, "/usr/share/doc/lsub/changelog.gz", 0o644, ""),
			at(filepath.Join(r.dir, "README.md"), "/usr/share/doc/lsub/README.md", 0o644, ""),
			at(texts.overrides, "/usr/share/lintian/overrides/lsub", 0o644, ""),
			completion("zsh", "/usr/share/zsh/vendor-completions/_lsub"),
			at(texts.manual, "/usr/share/man/man1/lsub.1.gz", 0o644, ""),
		}},
		{".rpm", rpm.DefaultRPM, license, qemu[t.arch].program, files.Contents{
			at(filepath.Join(r.dir, "LICENSE"), "/usr/share/licenses/lsub/LICENSE", 0o644, files.TypeRPMLicense),
			at(filepath.Join(r.dir, "README.md"), "/usr/share/doc/lsub/README.md", 0o644, files.TypeRPMDoc),
			at(filepath.Join(r.dir, "CHANGELOG.md"), "/usr/share/doc/lsub/CHANGELOG.md", 0o644, files.TypeRPMDoc),
			completion("zsh", "/usr/share/zsh/site-functions/_lsub"),
			at(texts.manual, "/usr/share/man/man1/lsub.1.gz", 0o644, files.TypeRPMDoc),
		}},
	} {
		info := nfpm.WithDefaults(&nfpm.Info{
			Name: "lsub", Arch: t.arch, Platform: "linux", Version: r.version, Release: "1", Section: "utils", Priority: "optional",
			Maintainer: maintainer, Homepage: homepage, License: p.license, Description: summary + "\n" + description,
			Changelog: texts.entries, MTime: r.at, DisableGlobbing: true,
			Overridables: nfpm.Overridables{
				Depends:  []string{p.needs},
				Contents: append(p.content, all...),
				RPM:      nfpm.RPM{Summary: summary, Group: "Applications/System", Compression: "gzip", BuildHost: "localhost"},
			},
		})
		if err := nfpm.PrepareForPackager(info, p.suffix[1:]); err != nil {
			return err
		}
		var b bytes.Buffer
		if err := p.packager.Package(info, &b); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.out, r.archive(t)+p.suffix), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// packageTexts are files that packages have. entries is a list of changes for nfpm.
type packageTexts struct{ copyright, changes, overrides, entries, manual string }

func (r *releaser) packageTexts(dir, manual string) (packageTexts, error) {
	t := packageTexts{filepath.Join(dir, "copyright"), filepath.Join(dir, "changelog.gz"), filepath.Join(dir, "overrides"), filepath.Join(dir, "entries.yaml"), filepath.Join(dir, "lsub.1.gz")}
	changes, err := os.ReadFile(filepath.Join(r.dir, "CHANGELOG.md"))
	if err != nil {
		return t, err
	}
	page, err := os.ReadFile(manual)
	if err != nil {
		return t, err
	}
	entries := fmt.Sprintf(`- semver: %s
  date: %s
  packager: %s
  deb:
    urgency: medium
    distributions: [unstable]
  changes:
    - note: CHANGELOG.md says what has changed.
`, r.version, r.at.Format(time.RFC3339), maintainer)
	copyright := `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: lsub
Source: ` + homepage + `

Files: *
Copyright: ` + r.at.Format("2006") + ` the lsub developers
License: ` + license + `
 On Debian systems, the text of this license is in
 /usr/share/common-licenses/Apache-2.0.

Comment:
 The program holds a guest made of Debian's packages. Their sources are at
 https://snapshot.debian.org. The release's bill of materials (*.cdx.json)
 lists them and the Go modules in the program.
`
	return t, errors.Join(
		writeGzip(t.changes, changes), writeGzip(t.manual, page),
		os.WriteFile(t.entries, []byte(entries), 0o644),
		os.WriteFile(t.copyright, []byte(copyright), 0o644),
		os.WriteFile(t.overrides, []byte(lintianOverrides), 0o644))
}

// writeGzip writes a file as Debian's policy has it: without a name or a time, as small as it
// gets.
func writeGzip(name string, text []byte) error {
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return errors.Join(err, w.Close(), os.WriteFile(name, z.Bytes(), 0o644))
}
