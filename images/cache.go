package images

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/filelock"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/rootfs"
)

// record is what the cache notes of an image, beside its archive.
type record struct {
	Version  int       `json:"version"`          // of this form: 1
	Recipe   string    `json:"recipe,omitempty"` // of a Debian suite, as recipe returns it
	Name     string    `json:"name"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`               // bytes of the plain archive
	Packed   int64     `json:"packed"`             // bytes of the compressed one
	Packages int       `json:"packages,omitempty"` // installed in it
	Digest   string    `json:"digest,omitempty"`   // of what it was made of: a manifest, or a download
	Config   *Config   `json:"config,omitempty"`   // of a container image
	Setup    Setup     `json:"setup,omitzero"`
	Built    time.Time `json:"built"`
}

// cacheEntry is the place of one image in the cache: CacheDir/images/KEY.json
// is its record, and blobs/ has the archive that the record names. Nothing is
// held open; of several processes the one with the lock may write.
type cacheEntry struct {
	dir      string // CacheDir/images
	key      string
	name     string // of the image, for messages
	arch     string // that the image is for, as GOARCH; "" is the host's
	progress Progress
	log      *slog.Logger
}

func newCacheEntry(cacheDir, key string, ref Ref, progress Progress, log *slog.Logger) cacheEntry {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return cacheEntry{
		dir: filepath.Join(cacheDir, "images"), key: key, name: ref.String(), arch: ref.Arch, progress: progress.oneAtATime(), log: log,
	}
}

// lock waits for the right to write the entry, and removes what was left by
// those who had it and were killed. The caller must Release it.
func (c *cacheEntry) lock(ctx context.Context) (*filelock.Lock, error) {
	if err := os.MkdirAll(filepath.Join(c.dir, "blobs"), 0o700); err != nil {
		return nil, err
	}
	return filelock.Acquire(ctx, filepath.Join(c.dir, c.key+".lock"), func() {
		c.progress.report(Step{Text: "waiting for another lsub that makes " + c.name})
	})
}

// record returns the image's record where its archive is there, or nil.
func (c *cacheEntry) record() *record {
	rec := c.readRecord()
	if rec == nil || rec.Version != 1 {
		return nil
	}
	info, err := os.Stat(c.blobPath(rec.ID))
	if err != nil || info.Size() != rec.Packed {
		c.log.Warn("cached image is incomplete", "record", c.recordPath(), "err", err)
		return nil
	}
	return rec
}

// readRecord returns the image's record as it stands there, or nil.
func (c *cacheEntry) readRecord() *record {
	data, err := os.ReadFile(c.recordPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	rec := new(record)
	if err == nil {
		err = json.Unmarshal(data, rec)
	}
	if err != nil {
		c.log.Warn("cached image has no readable record", "record", c.recordPath(), "err", err)
		return nil
	}
	return rec
}

func (c *cacheEntry) recordPath() string { return filepath.Join(c.dir, c.key+".json") }

func (c *cacheEntry) blobPath(id string) string {
	return filepath.Join(c.dir, "blobs", strings.ReplaceAll(filepath.Base(id), ":", "-")+".tar.zst")
}

// image makes the Image of a record; distro is the name for distros of it,
// where the image itself says none.
func (c *cacheEntry) image(rec *record, distro string) *Image {
	img := &Image{
		ID: rec.ID, Name: c.name, Size: rec.Size, Distro: cmp.Or(rec.Setup.Name, distro), Setup: rec.Setup,
		open: func(ctx context.Context) (io.ReadCloser, error) { return c.openBlob(ctx, rec) },
	}
	if rec.Config != nil {
		img.Config = *rec.Config
	}
	return img
}

// openBlob opens the cached archive. Where its bytes turn out to be wrong, the
// record goes, so that the next Pull makes the image anew.
func (c *cacheEntry) openBlob(ctx context.Context, rec *record) (io.ReadCloser, error) {
	f, err := os.Open(c.blobPath(rec.ID))
	if err != nil {
		return nil, err
	}
	z, err := zstd.NewReader(ctxio.NewReader(ctx, f))
	if err != nil {
		f.Close()
		return nil, err
	}
	body := z.IOReadCloser()
	return &verifier{
		ReadCloser: &stack{&forgetful{body, ctx, c}, []io.Closer{body, f}},
		sum:        sha256.New(), want: rec.ID, bad: c.forget,
	}, nil
}

// forget removes the image's record and returns the error for its reader.
func (c *cacheEntry) forget() error {
	err := errors.New("cached image " + c.name + " is damaged")
	return hint.New(errors.Join(err, os.Remove(c.recordPath())), "try again: it is built anew")
}

// forgetful forgets the image when it cannot be decompressed.
type forgetful struct {
	r   io.Reader
	ctx context.Context
	c   *cacheEntry
}

func (f *forgetful) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err != nil && err != io.EOF && f.ctx.Err() == nil && !errors.As(err, new(*fs.PathError)) {
		f.c.log.Warn("cached image cannot be read", "image", f.c.name, "err", err)
		err = f.c.forget()
	}
	return n, err
}

// save puts the image that fill makes into the cache: fill writes the archive
// to the file it is given, by pack, and returns the record without what save
// knows itself. The lock is held.
func (c *cacheEntry) save(fill func(io.Writer) (*summary, *record, error)) (*record, error) {
	old := c.readRecord()
	tmp, err := atomicfile.Create(c.dir, c.tempPrefix())
	if err != nil {
		return nil, err
	}
	defer tmp.Discard()
	s, rec, err := fill(tmp)
	if err != nil {
		return nil, err
	}
	info, err := tmp.Stat()
	if err != nil {
		return nil, err
	}
	if err := tmp.Commit(c.blobPath(s.id)); err != nil {
		return nil, err
	}
	rec.Version, rec.Name, rec.ID, rec.Size = 1, c.name, s.id, s.size
	rec.Setup = s.setup
	rec.Packed, rec.Built = info.Size(), time.Now().UTC()
	if err := c.writeRecord(rec); err != nil {
		return nil, err
	}
	if old != nil && old.ID != rec.ID && !c.others(old.ID) {
		// A reader that has it open keeps its bytes.
		if err := os.Remove(c.blobPath(old.ID)); err != nil {
			c.log.Warn("remove the image before", "err", err)
		}
	}
	return rec, nil
}

// pack checks the archive as it comes and writes it compressed to w.
func (c *cacheEntry) pack(ctx context.Context, tar io.Reader, w io.Writer, st *rootfs.State) (*summary, error) {
	disk := &errWriter{w: w}
	// The fastest level: a slower one saves a tenth and keeps the user waiting.
	z, err := zstd.NewWriter(disk, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	packed := &progressReader{r: io.TeeReader(tar, z), step: Step{Text: "packing", Bytes: true}, progress: c.progress}
	s, err := scan(ctx, packed, c.arch, st)
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
func (c *cacheEntry) writeRecord(rec *record) error {
	data, err := json.MarshalIndent(rec, "", "\t")
	if err != nil {
		return err
	}
	return atomicfile.Write(c.recordPath(), append(data, '\n'), 0o600)
}

func (c *cacheEntry) tempPrefix() string { return "tmp-" + c.key + "-" }

// removeLeftovers removes what makers of this image left that were killed. The
// lock is held, so no other one is at work.
func (c *cacheEntry) removeLeftovers() {
	left, _ := filepath.Glob(filepath.Join(c.dir, c.tempPrefix()+"*"))
	left = append(left, c.unreferenced()...)
	partial, _ := filepath.Glob(filepath.Join(c.dir, "partial", "*"))
	for _, dir := range partial {
		if dir != c.partialDir() && cachedir.OlderThan(dir, partialAge) {
			left = append(left, dir)
		}
	}
	for _, l := range left {
		if err := os.RemoveAll(l); err != nil {
			c.log.Warn("remove what was left", "err", err)
		}
	}
}

// partialAge is for how long the parts of an image that never became whole are
// kept.
const partialAge = 7 * 24 * time.Hour

// partialDir holds what was downloaded of the image until it is whole.
func (c *cacheEntry) partialDir() string { return filepath.Join(c.dir, "partial", c.key) }

// dropPartial removes what was downloaded.
func (c *cacheEntry) dropPartial() {
	if err := os.RemoveAll(c.partialDir()); err != nil {
		c.log.Warn("remove what was downloaded", "err", err)
	}
}

// named returns the archives that the cache's records name; ok is false where
// one cannot be read, which may name any.
func (c *cacheEntry) named() (paths map[string]bool, ok bool) {
	paths = map[string]bool{}
	records, _ := filepath.Glob(filepath.Join(c.dir, "*.json"))
	for _, r := range records {
		var rec struct{ ID string }
		data, err := os.ReadFile(r)
		if err != nil || json.Unmarshal(data, &rec) != nil {
			return nil, false
		}
		paths[c.blobPath(rec.ID)] = true
	}
	return paths, true
}

// others tells whether a record names the image id, as two names of the same
// bytes do.
func (c *cacheEntry) others(id string) bool {
	named, ok := c.named()
	return !ok || named[c.blobPath(id)]
}

// unreferenced returns the archives that no record names any more. One that is
// new may belong to a maker whose record is still to come.
func (c *cacheEntry) unreferenced() []string {
	named, ok := c.named()
	if !ok {
		return nil
	}
	var found []string
	blobs, _ := filepath.Glob(filepath.Join(c.dir, "blobs", "*"))
	for _, blob := range blobs {
		if !named[blob] && cachedir.OlderThan(blob, time.Hour) {
			found = append(found, blob)
		}
	}
	return found
}
