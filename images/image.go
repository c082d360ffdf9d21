package images

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"

	"github.com/lsub/lsub/hint"
)

// Image is a root file system whose archive was checked. It holds no file open
// and is safe for concurrent use.
type Image struct {
	ID     string // "sha256:" and the hexadecimal sum of the uncompressed tar
	Name   string // the name that was asked for, such as "debian:trixie"
	Size   int64  // bytes of the uncompressed tar
	Distro string // name to give a distro made of it, such as "debian"
	Config Config // of a container image; zero for others
	Setup  Setup  // of /etc/wsl-distribution.conf; zero where the image has none

	open func(context.Context) (io.ReadCloser, error)
}

// Config is the part of a container image's configuration that describes the
// process to start. It is not checked: the image's maker may write anything.
type Config struct {
	User       string   `json:"user,omitempty"` // name or number, perhaps ":" and a group's
	Env        []string `json:"env,omitempty"`  // "KEY=VALUE"
	Entrypoint []string `json:"entrypoint,omitempty"`
	Cmd        []string `json:"cmd,omitempty"`
	WorkingDir string   `json:"workingDir,omitempty"`
}

// Open returns the plain tar archive. Where its bytes do not match the image's
// ID, the last Read returns an error in place of io.EOF: the caller must then
// throw away everything that it unpacked. Reading fails once ctx has ended. The
// caller must Close the reader.
func (i *Image) Open(ctx context.Context) (io.ReadCloser, error) { return i.open(ctx) }

// Ref names an image.
type Ref struct {
	Source  string // "debian", "oci", "https", or "file" for a tar archive
	Version string // the suite with its options, the name in a registry, "//HOST/PATH", or the file's path
	SHA256  string // of what "https" downloads, as small hexadecimal digits
	Label   string // for Image.Name: a catalogue's name with a version, or "stdin"; "" elsewhere
	Distro  string // for Image.Distro; "" lets the source choose
	Arch    string // of the processor that it is for, as GOARCH; "" is the host's

	Insecure bool // see AllowInsecure
}

// String returns the form that ParseRef reads.
func (r Ref) String() string { return r.Source + ":" + r.Version }

// FileRef names the tar archive at path.
func FileRef(path string) Ref { return Ref{Source: "file", Version: path} }

// ParseRef reads an image's name: "debian" or "debian:SUITE", where the suite
// is a code name or a number and "?include=PACKAGE,PACKAGE&variant=VARIANT" may
// follow; or "oci:" and a container image's name. An address takes more than a
// name: see URLRef. The error carries a hint that lists the names.
func ParseRef(name string) (Ref, error) {
	if text, ok := strings.CutPrefix(name, "oci:"); ok {
		return parseOCI(text)
	}
	if strings.Contains(name, "://") {
		_, err := URLRef(name, "")
		return Ref{}, err
	}
	lower := strings.ToLower(name)
	if source, _, _ := strings.Cut(strings.Replace(lower, "?", ":", 1), ":"); source != "debian" {
		return Ref{}, hint.New(fmt.Errorf("no image %q is known", name),
			"known are "+strings.Join(Names(), ", ")+", and oci:REGISTRY/REPOSITORY:TAG; a tar archive is installed with --from-file")
	}
	return parseDebian(lower)
}

// Names lists the images that lsub builds itself.
func Names() []string {
	var names []string
	for _, s := range debianSuites {
		names = append(names, "debian:"+s.name)
	}
	return names
}

// Source gets images of one kind. Implementations are safe for concurrent use,
// also by several processes that share a cache.
type Source interface {
	// Pull returns the image that ref names. An image that is not in the cache
	// may take minutes; progress is told how far it is. When ctx ends, Pull
	// stops and leaves nothing half-made behind.
	Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error)
}

// SourceOf returns the source for ref. Its cache is in cacheDir; log may be nil.
func SourceOf(ref Ref, cacheDir string, log *slog.Logger) Source {
	switch ref.Source {
	case "file":
		return &Tarball{CacheDir: cacheDir, Arch: ref.Arch}
	case "oci":
		return &OCI{CacheDir: cacheDir, Arch: ref.Arch, Log: log}
	case "https":
		return &HTTPS{CacheDir: cacheDir, Log: log}
	}
	return &Debian{CacheDir: cacheDir, Log: log}
}

// Progress receives reports while a Pull runs. It is called from one goroutine
// at a time and must return soon. A nil Progress receives none.
type Progress func(Step)

// Step is one report of a Progress.
type Step struct {
	Text  string // for people, such as "downloading packages"
	Done  int64
	Total int64 // 0 where it is not known
	Bytes bool  // Done and Total count bytes; otherwise packages
}

// oneAtATime returns a Progress that several goroutines may report to.
func (p Progress) oneAtATime() Progress {
	if p == nil {
		return nil
	}
	var mu sync.Mutex
	return func(s Step) {
		mu.Lock()
		defer mu.Unlock()
		p(s)
	}
}

// counted returns a function that reports step with what it is told is done,
// not more often than each mebibyte. A squashfs image may turn out larger than
// step says.
func (p Progress) counted(step Step) func(int64) {
	return func(n int64) {
		before := step.Done
		if step.Done += n; step.Total > 0 && step.Done > step.Total {
			step.Total = 0
		}
		if step.Done>>20 != before>>20 || step.Done == step.Total && n > 0 {
			p.report(step)
		}
	}
}

func (p Progress) report(s Step) {
	if p != nil {
		p(s)
	}
}
