package images

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/filelock"
	"github.com/lsub/lsub/rootfs"
)

// Debian is the Source of Debian suites. It builds a root file system on the
// host with mmdebstrap, so it works on Linux only, as root or as a user with
// subordinate ids, and keeps it in the cache: later Pulls take it from there,
// without a network. Of several processes that want the same image one builds
// it and the others wait.
type Debian struct {
	CacheDir string       // lsub's cache folder
	Refresh  bool         // build the image anew, with today's packages
	Log      *slog.Logger // may be nil
}

var _ Source = (*Debian)(nil)

// defaultSuite is what "debian" alone means.
const defaultSuite = "trixie"

// debianSuites are the suites known to boot in lsub.
var debianSuites = []struct{ name, number string }{
	{"trixie", "13"}, {"bookworm", "12"}, {"bullseye", "11"}, {"sid", ""},
}

// debianRecord is what the cache notes of an image, beside its archive.
type debianRecord struct {
	Version  int       `json:"version"` // of this form: 1
	Recipe   string    `json:"recipe"`  // as recipe returns it
	Name     string    `json:"name"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`     // bytes of the plain archive
	Packed   int64     `json:"packed"`   // bytes of the compressed one
	Packages int       `json:"packages"` // installed in it
	Built    time.Time `json:"built"`
}

// debianBuild is one Pull's work.
type debianBuild struct {
	src      *Debian
	ref      Ref
	dir      string // CacheDir/images
	key      string // of the image in the cache
	progress Progress
	log      *slog.Logger
}

// Pull returns the image of the suite that ref names.
func (d *Debian) Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	b := &debianBuild{
		src: d, ref: ref, dir: filepath.Join(d.CacheDir, "images"), progress: progress.oneAtATime(), log: d.Log,
		key: fmt.Sprintf("debian-%s-%s", ref.Version, runtime.GOARCH),
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	img, err := b.pull(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, noSpace(err, d.CacheDir))
	}
	return img, nil
}

func (b *debianBuild) pull(ctx context.Context) (*Image, error) {
	started := time.Now()
	if !b.src.Refresh {
		if rec := b.cached(); rec != nil {
			return b.image(rec), nil
		}
	}
	if runtime.GOOS != "linux" {
		return nil, hint.New(errors.New("a Debian suite is built with mmdebstrap, which runs on Linux only"),
			"install a root file system's tar archive with --from-file")
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "blobs"), 0o700); err != nil {
		return nil, err
	}
	lock, err := filelock.Acquire(ctx, filepath.Join(b.dir, b.key+".lock"), func() {
		b.progress.report(Step{Text: "waiting for another lsub that builds " + b.ref.String()})
	})
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	// Another process may have built it while this one waited.
	if rec := b.cached(); rec != nil && (!b.src.Refresh || rec.Built.After(started)) {
		return b.image(rec), nil
	}
	b.removeLeftovers()
	rec, err := b.build(ctx)
	if err != nil {
		return nil, err
	}
	return b.image(rec), nil
}

// cached returns the image's record, or nil where it has to be built.
func (b *debianBuild) cached() *debianRecord {
	rec := b.record()
	if rec == nil || rec.Version != 1 || rec.Recipe != recipe() {
		return nil
	}
	info, err := os.Stat(b.blobPath(rec.ID))
	if err != nil || info.Size() != rec.Packed {
		b.log.Warn("cached image is incomplete", "record", b.recordPath(), "err", err)
		return nil
	}
	return rec
}

// record returns the image's record, of whatever recipe, or nil.
func (b *debianBuild) record() *debianRecord {
	data, err := os.ReadFile(b.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	rec := new(debianRecord)
	if err == nil {
		err = json.Unmarshal(data, rec)
	}
	if err != nil {
		b.log.Warn("cached image has no readable record", "record", b.recordPath(), "err", err)
		return nil
	}
	return rec
}

func (b *debianBuild) recordPath() string { return filepath.Join(b.dir, b.key+".json") }

func (b *debianBuild) blobPath(id string) string {
	return filepath.Join(b.dir, "blobs", strings.ReplaceAll(filepath.Base(id), ":", "-")+".tar.zst")
}

func (b *debianBuild) image(rec *debianRecord) *Image {
	return &Image{
		ID: rec.ID, Name: b.ref.String(), Size: rec.Size, Distro: b.ref.Source,
		open: func(ctx context.Context) (io.ReadCloser, error) { return b.openBlob(ctx, rec) },
	}
}

// openBlob opens the cached archive. Where its bytes turn out to be wrong, the
// record goes, so that the next Pull builds the image anew.
func (b *debianBuild) openBlob(ctx context.Context, rec *debianRecord) (io.ReadCloser, error) {
	f, err := os.Open(b.blobPath(rec.ID))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(ctxReader{ctx, f})
	if err != nil {
		f.Close()
		return nil, err
	}
	body := z.IOReadCloser()
	return &verifier{
		ReadCloser: &stack{&forgetful{body, ctx, b}, []io.Closer{body, f}},
		sum:        sha256.New(), want: rec.ID, bad: b.forget,
	}, nil
}

// forget removes the image's record and returns the error for its reader.
func (b *debianBuild) forget() error {
	err := fmt.Errorf("cached image %s is damaged", b.ref)
	return hint.New(errors.Join(err, os.Remove(b.recordPath())), "try again: it is built anew")
}

// forgetful forgets the image when it cannot be decompressed.
type forgetful struct {
	r   io.Reader
	ctx context.Context
	b   *debianBuild
}

func (f *forgetful) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF && f.ctx.Err() == nil && !errors.As(err, new(*fs.PathError)) {
		f.b.log.Warn("cached image cannot be read", "image", f.b.ref, "err", err)
		err = f.b.forget()
	}
	return n, err
}

// build makes the image and puts it into the cache.
func (b *debianBuild) build(ctx context.Context) (*debianRecord, error) {
	old := b.record()
	tmp, err := os.CreateTemp(b.dir, b.tempPrefix())
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name()) // fails once it was renamed
	defer tmp.Close()

	run := &bootstrap{suite: b.ref.Version, progress: b.progress, log: b.log}
	var s *summary
	err = run.run(ctx, func(ctx context.Context, tar io.Reader) (err error) {
		s, err = b.store(ctx, tar, tmp)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := tmp.Sync(); err != nil {
		return nil, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return nil, err
	}
	if err := os.Rename(tmp.Name(), b.blobPath(s.id)); err != nil {
		return nil, err
	}
	rec := &debianRecord{
		Version: 1, Recipe: recipe(), Name: b.ref.String(), ID: s.id, Size: s.size, Packed: info.Size(),
		Packages: run.installed, Built: time.Now().UTC(),
	}
	if err := b.writeRecord(rec); err != nil {
		return nil, err
	}
	if old != nil && old.ID != rec.ID {
		// A reader that has it open keeps its bytes.
		if err := os.Remove(b.blobPath(old.ID)); err != nil {
			b.log.Warn("remove the image before", "err", err)
		}
	}
	return rec, nil
}

// store checks the archive as it comes and writes it compressed to w.
func (b *debianBuild) store(ctx context.Context, tar io.Reader, w io.Writer) (*summary, error) {
	disk := &errWriter{w: w}
	// The fastest level: a slower one saves a tenth and keeps the user waiting.
	z, err := zstd.NewWriter(disk, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	packed := &progressReader{r: io.TeeReader(tar, z), step: Step{Text: "packing", Bytes: true}, progress: b.progress}
	s, err := scan(ctx, packed, new(rootfs.State))
	closeErr := z.Close()
	switch {
	case disk.err != nil: // the others are of its making
		return nil, disk.err
	case err != nil:
		return nil, err
	}
	return s, closeErr
}

// errWriter remembers why writing failed.
type errWriter struct {
	w   io.Writer
	err error
}

func (e *errWriter) Write(p []byte) (int, error) {
	n, err := e.w.Write(p)
	if err != nil && e.err == nil {
		e.err = err
	}
	return n, err
}

// writeRecord replaces the image's record, whole.
func (b *debianBuild) writeRecord(rec *debianRecord) error {
	data, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(b.dir, b.tempPrefix())
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(append(data, '\n'))
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), b.recordPath())
}

func (b *debianBuild) tempPrefix() string { return "tmp-" + b.key + "-" }

// removeLeftovers removes what builds of this image left that were killed. The
// lock is held, so no other build of it is at work.
func (b *debianBuild) removeLeftovers() {
	left, _ := filepath.Glob(filepath.Join(b.dir, b.tempPrefix()+"*"))
	left = append(left, b.unreferenced()...)
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			b.log.Warn("remove what a build left", "err", err)
		}
	}
}

// unreferenced returns the archives that no record names any more. One that is
// new may belong to a build whose record is still to come.
func (b *debianBuild) unreferenced() []string {
	named := map[string]bool{}
	records, _ := filepath.Glob(filepath.Join(b.dir, "*.json"))
	for _, r := range records {
		var rec struct{ ID string }
		data, err := os.ReadFile(r)
		if err != nil || json.Unmarshal(data, &rec) != nil {
			return nil // it may name any
		}
		named[b.blobPath(rec.ID)] = true
	}
	var found []string
	blobs, _ := filepath.Glob(filepath.Join(b.dir, "blobs", "*"))
	for _, blob := range blobs {
		if !named[blob] && olderThan(blob, time.Hour) {
			found = append(found, blob)
		}
	}
	return found
}
