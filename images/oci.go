package images

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/images/internal/web"
	"github.com/lsub/lsub/rootfs"
)

// OCI is the Source of container images in registries. It flattens an image's
// layers into one archive and keeps that in the cache. A tag is asked for at
// the registry each time; where that cannot be reached, the cached image does.
//
// Layers are kept until the image is whole, so a Pull that was interrupted goes
// on with those it has. Credentials come from where docker and podman keep
// them, also from their credential helpers.
type OCI struct {
	CacheDir string       // lsub's cache directory
	Arch     string       // as GOARCH; "" is the host's
	MaxBytes int64        // limit for the sum of the files' sizes; 0: rootfs.DefaultMaxBytes
	Log      *slog.Logger // may be nil

	backoff remote.Backoff // between attempts; the zero value is usual
}

var _ Source = (*OCI)(nil)

// ociPull is one Pull's work.
type ociPull struct {
	cacheEntry
	src      *OCI
	ref      name.Reference
	insecure bool
	reg      *registry
}

// parseOCI reads the part of an image's name behind "oci:".
func parseOCI(text string) (Ref, error) {
	ref, err := name.ParseReference(text)
	if err != nil || ref.Context().RepositoryStr() == "" {
		return Ref{}, hint.New(fmt.Errorf("%q cannot be the name of a container image", text),
			"write oci:REGISTRY/REPOSITORY:TAG or oci:REGISTRY/REPOSITORY@sha256:DIGEST, such as oci:docker.io/library/debian:trixie")
	}
	return Ref{Source: "oci", Version: text}, nil
}

// Pull returns the image that ref names, for the architecture of o.
func (o *OCI) Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	parsed, err := ref.parse()
	if err != nil {
		return nil, err
	}
	arch := o.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	key := fmt.Sprintf("oci-%x-%s", sha256.Sum256([]byte(parsed.Name())), arch)
	p := &ociPull{
		cacheEntry: newCacheEntry(o.CacheDir, key, ref, progress, o.Log),
		src:        o, ref: parsed, insecure: ref.Insecure,
	}
	p.arch = arch
	rec, err := p.pull(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, cachedir.NoSpace(notForDistros(err), o.CacheDir))
	}
	return p.image(rec, distroName(path.Base(parsed.Context().RepositoryStr()))), nil
}

// notForDistros gives advice on a container image that is no root file system.
func notForDistros(err error) error {
	if errors.As(err, new(*rootfs.UnusableError)) || errors.As(err, new(*rootfs.EntryError)) {
		return hint.New(err, "choose an image of a whole distribution, such as oci:docker.io/library/debian")
	}
	return err
}

func (p *ociPull) pull(ctx context.Context) (*record, error) {
	if d, ok := p.ref.(name.Digest); ok {
		if rec := p.record(); rec != nil && rec.Digest == d.DigestStr() {
			return rec, nil // a digest never means anything else
		}
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	p.removeLeftovers()
	if p.reg, err = openRegistry(p.ref, p.insecure, p.src.backoff); err != nil {
		return nil, err
	}
	defer p.reg.close()
	p.progress.report(Step{Text: "asking " + p.ref.Context().RegistryStr()})
	top, data, err := p.reg.top(ctx)
	rec := p.record()
	if err != nil {
		if rec == nil || !unreachable(ctx, err) {
			return nil, p.reg.explain(ctx, err)
		}
		p.log.Warn("the registry cannot be reached", "image", p.name, "err", err)
		p.progress.report(Step{Text: fmt.Sprintf("using the image of %s: %s cannot be reached",
			rec.Built.Local().Format(time.DateOnly), p.ref.Context().RegistryStr())})
		return rec, nil
	}
	if rec != nil && rec.Digest == top.Digest.String() {
		return rec, nil
	}
	c, err := findImage(ctx, p.reg, top, data, p.arch)
	if err != nil {
		return nil, p.reg.explain(ctx, err)
	}
	return p.make(ctx, top, c)
}

// make downloads the layers and flattens them.
func (p *ociPull) make(ctx context.Context, top v1.Descriptor, c *container) (*record, error) {
	layers, err := p.download(ctx, c)
	if err != nil {
		return nil, p.reg.explain(ctx, err)
	}
	rec, err := p.save(func(w io.Writer) (*summary, *record, error) {
		f := &flattener{layers: layers, state: &rootfs.State{MaxBytes: p.src.MaxBytes}}
		s, err := p.packLayers(ctx, f, w)
		return s, &record{Digest: top.Digest.String(), Config: &c.config}, err
	})
	if err == nil || ctx.Err() == nil {
		// They have done their work; or one of them is not what it should be.
		p.dropPartial()
	}
	return rec, err
}

// download gets the layers that are not there yet.
func (p *ociPull) download(ctx context.Context, c *container) ([]layer, error) {
	if err := os.MkdirAll(p.partialDir(), 0o700); err != nil {
		return nil, err
	}
	step := Step{Text: "downloading layers", Bytes: true}
	for _, l := range c.layers {
		if l.Size < 0 || l.Size > maxDownload-step.Total {
			return nil, &rootfs.LimitError{What: "bytes", Limit: maxDownload}
		}
		step.Total += l.Size
	}
	var layers []layer
	for i, l := range c.layers {
		file := filepath.Join(p.partialDir(), "sha256-"+l.Digest.Hex)
		done := step.Done
		if info, err := os.Stat(file); err != nil || info.Size() != l.Size {
			if err := p.tryLayer(ctx, l, file, &step); err != nil {
				return nil, fmt.Errorf("layer %d of %d: %w", i+1, len(c.layers), err)
			}
		}
		step.Done = done + l.Size
		p.progress.report(step)
		layers = append(layers, layer{
			digest: l.Digest.String(), diffID: c.diffs[i], size: l.Size,
			open: func() (io.ReadCloser, error) { return os.Open(file) },
		})
	}
	return layers, nil
}

// tryLayer gets one layer, in more attempts than one where the connection
// breaks.
func (p *ociPull) tryLayer(ctx context.Context, l v1.Descriptor, file string, step *Step) error {
	for attempt := 1; ; attempt++ {
		err := p.downloadLayer(ctx, l, file, step)
		if err == nil || attempt == attempts || !web.IsNetworkError(err) || !unreachable(ctx, err) {
			return err
		}
		p.log.Debug("the download of a layer stopped", "layer", l.Digest.String(), "err", err)
	}
}

// downloadLayer gets one layer, which appears under its name when it is whole
// and verified.
func (p *ociPull) downloadLayer(ctx context.Context, l v1.Descriptor, file string, step *Step) error {
	r, err := p.reg.blob(ctx, l)
	if err != nil {
		return err
	}
	defer r.Close()
	tmp, err := atomicfile.Create(filepath.Dir(file), "tmp-")
	if err != nil {
		return err
	}
	defer tmp.Discard()
	sum := newDigester()
	got := &progressReader{r: io.LimitReader(ctxio.NewReader(ctx, r), l.Size+1), step: *step, reported: step.Done, progress: p.progress}
	if _, err := io.Copy(io.MultiWriter(tmp, sum), got); err != nil {
		return err
	}
	if err := wrongDigest(sum, l); err != nil {
		return err
	}
	return tmp.Commit(file)
}
