package images

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/rootfs"
	"github.com/lsub/lsub/rootfs/pax"
)

// layer is one layer of a container image, lowest first in a list of them.
type layer struct {
	digest string // of its bytes as they come, for messages
	diffID string // of its plain tar archive, from the image's configuration
	size   int64  // of its bytes as they come, for progress
	open   func() (io.ReadCloser, error)
}

// flattener makes one plain archive of an image's layers: directories first, then
// each file where its layer has it, with its further names right behind it. The
// same layers always give the same bytes. It reads the layers twice, and holds
// the names but no contents in memory.
type flattener struct {
	layers   []layer
	plain    bool          // the one layer is an archive of a tree: it has no whiteouts, and no diffID
	state    *rootfs.State // carries limits for the sum of the layers; may be nil
	progress Progress
}

// flatten writes the archive to w. Errors of w come back as they are.
func (f *flattener) flatten(ctx context.Context, w io.Writer) error {
	if len(f.layers) == 0 || len(f.layers) > maxLayers {
		return fmt.Errorf("image has %d layers; 1 to %d can be unpacked", len(f.layers), maxLayers)
	}
	if f.state == nil {
		f.state = new(rootfs.State)
	}
	t := newLayerTree()
	t.plain = f.plain
	if n := f.state.MaxEntries; n > 0 {
		t.limit = n
	}
	step := Step{Text: "checking the layers", Bytes: true}
	for _, l := range f.layers {
		step.Total += l.size
		t.maxMemory += memoryRatio * l.size
	}
	for i := range f.layers {
		t.layer = i
		err := f.index(ctx, t, &f.layers[i], &step)
		if err == nil {
			err = t.endLayer()
		}
		if err != nil {
			return f.layerError(i, err)
		}
	}
	e := t.emit()
	tw := tar.NewWriter(w)
	for _, h := range e.dirs {
		if err := tw.WriteHeader(h); err != nil {
			return unwritable(h, err)
		}
	}
	for i := range f.layers {
		if len(e.files[i]) == 0 {
			continue
		}
		if err := f.copy(ctx, w, tw, &f.layers[i], e.files[i]); err != nil {
			return f.layerError(i, err)
		}
	}
	return tw.Close()
}

// layerError says which layer an error is of.
func (f *flattener) layerError(i int, err error) error {
	if f.plain {
		return err
	}
	return fmt.Errorf("layer %d (%s): %w", i+1, f.layers[i].digest, err)
}

// unwritable is the error for a header that package tar read but cannot write.
func unwritable(h *tar.Header, err error) error {
	if errors.Is(err, tar.ErrHeader) {
		return &rootfs.EntryError{Name: h.Name, Reason: "has a header that cannot be kept"}
	}
	return err
}

// openTar opens a layer's plain archive. Closing it closes the layer.
func (l *layer) openTar(ctx context.Context, maxBytes int64, report func(int64)) (io.ReadCloser, error) {
	r, err := l.open()
	if err != nil {
		return nil, err
	}
	z, err := decompressGuarded(&countReader{ctxio.NewReader(ctx, r), report}, maxBytes)
	if err != nil {
		r.Close()
		return nil, err
	}
	return &stack{z, []io.Closer{z, r}}, nil
}

// index adds a layer to the tree, and verifies its bytes.
func (f *flattener) index(ctx context.Context, t *layerTree, l *layer, step *Step) error {
	z, err := l.openTar(ctx, f.state.MaxBytes, func(n int64) {
		before := step.Done
		if step.Done += n; step.Done>>20 != before>>20 {
			f.progress.report(*step)
		}
	})
	if err != nil {
		return err
	}
	defer z.Close()
	maxBytes := f.state.MaxBytes
	if maxBytes == 0 {
		maxBytes = rootfs.DefaultMaxBytes
	}
	raw := &rawReader{r: z, sum: sha256.New(), limit: 2*maxBytes + 64<<20}
	tr := tar.NewReader(raw)
	for i := 0; ; i++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return tarError(ctx, err, raw.n)
		}
		if err := count(f.state, h); err != nil {
			return err
		}
		if err := t.add(h, i); err != nil {
			return err
		}
	}
	if tail, err := io.Copy(io.Discard, io.LimitReader(raw, maxTail+1)); err != nil {
		return tarError(ctx, err, raw.n)
	} else if tail > maxTail {
		return errors.New("goes on after the archive's end")
	}
	if raw.id() != l.diffID && !f.plain {
		return hint.New(fmt.Errorf("its contents are %s, not %s as the image says", raw.id(), l.diffID),
			"the image was made wrongly, or somebody changed it: do not use it")
	}
	return nil
}

// count adds the entry to the sums and checks the limits. The rest of the
// policy is for the archive that comes out: layers mean names differently.
func count(st *rootfs.State, h *tar.Header) error {
	sum := rootfs.State{MaxBytes: st.MaxBytes, MaxEntries: st.MaxEntries, Bytes: st.Bytes, Entries: st.Entries}
	size := h.Size
	if pax.Sparse(h) {
		size = 0 // as rootfs has it: its data is in the layer, whose reader limits it
	}
	err := rootfs.CheckHeader(&tar.Header{Typeflag: tar.TypeXGlobalHeader, Size: size}, &sum)
	st.Bytes, st.Entries = sum.Bytes, sum.Entries
	return err
}

// copy writes the given files of a layer to tw, which writes to w.
func (f *flattener) copy(ctx context.Context, w io.Writer, tw *tar.Writer, l *layer, files []*layerFile) error {
	z, err := l.openTar(ctx, f.state.MaxBytes, func(int64) {})
	if err != nil {
		return err
	}
	defer z.Close()
	tr := pax.NewReader(z)
	for i := 0; len(files) > 0; i++ {
		h, err := tr.Next()
		if err != nil {
			return damaged(err) // it was whole when it was read before
		}
		if i != files[0].index {
			continue
		}
		names := files[0].names
		files = files[1:]
		out := plainHeader(h)
		out.Name = names[0]
		if pax.Sparse(h) {
			err = copySparse(w, tw, out, tr)
		} else if err = tw.WriteHeader(out); err == nil {
			_, err = io.Copy(tw, tr)
		}
		if err != nil {
			return unwritable(out, err)
		}
		for _, name := range names[1:] {
			link := plainHeader(h)
			link.Typeflag, link.Size, link.Name, link.Linkname = tar.TypeLink, 0, name, names[0]
			link.Devmajor, link.Devminor, link.PAXRecords = 0, 0, nil
			if err := tw.WriteHeader(link); err != nil {
				return unwritable(link, err)
			}
		}
	}
	return nil
}

// copySparse writes an entry with holes, which package tar cannot: otherwise
// those of a file of any size would be written as zeros.
func copySparse(w io.Writer, tw *tar.Writer, h *tar.Header, r *pax.Reader) error {
	if err := tw.Flush(); err != nil {
		return err
	}
	b, err := pax.AppendHeader(nil, h, append([]pax.Extent{}, r.Extents()...)) // nil would mean no holes
	if err != nil {
		return &rootfs.EntryError{Name: h.Name, Reason: "has a header that cannot be kept"}
	}
	if _, err := w.Write(b); err != nil {
		return err
	}
	n, err := io.Copy(w, r)
	if err != nil {
		return err
	}
	_, err = w.Write(pax.AppendPadding(nil, n))
	return err
}

// countReader tells how much went through it.
type countReader struct {
	r      io.Reader
	report func(int64)
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.report(int64(n))
	return n, err
}

// digester sums up what is written to it.
type digester struct {
	hash.Hash
	n int64
}

func newDigester() *digester { return &digester{Hash: sha256.New()} }

func (d *digester) Write(p []byte) (int, error) {
	d.n += int64(len(p))
	return d.Hash.Write(p)
}

func (d *digester) String() string { return "sha256:" + hex.EncodeToString(d.Sum(nil)) }

// packLayers flattens an image into the cache's form. Closing the pipe on the
// way out ends the flattener, which is waited for.
func (c *cacheEntry) packLayers(ctx context.Context, f *flattener, w io.Writer) (*summary, error) {
	f.progress = c.progress
	r, pipe := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := f.flatten(ctx, pipe)
		pipe.CloseWithError(err)
		done <- err
	}()
	limits := &rootfs.State{}
	if f.state != nil {
		*limits = rootfs.State{MaxBytes: f.state.MaxBytes, MaxEntries: f.state.MaxEntries}
	}
	s, err := c.pack(ctx, r, w, limits)
	r.CloseWithError(errStopped)
	if ferr := <-done; ferr != nil && !errors.Is(ferr, errStopped) {
		return nil, ferr // pack's is of its making
	}
	return s, err
}

// flattened returns the record of the image in the cache. Where there is none, it flattens
// the image with f; made is what the record then says beside what save knows.
func (c *cacheEntry) flattened(ctx context.Context, f *flattener, made record) (*record, error) {
	lock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	c.removeLeftovers()
	if rec := c.record(); rec != nil {
		return rec, nil
	}
	return c.save(func(w io.Writer) (*summary, *record, error) {
		s, err := c.packLayers(ctx, f, w)
		return s, &made, err
	})
}

var errStopped = errors.New("stopped")
