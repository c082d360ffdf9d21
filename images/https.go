package images

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/cachedir"
	"github.com/lsub/lsub/images/internal/ctxio"
	"github.com/lsub/lsub/images/internal/web"
	"github.com/lsub/lsub/rootfs"
)

// HTTPS is the Source of images on web servers: archives, squashfs images and
// saved container images, whose sha256 sum is known beforehand. An image in the
// cache is used without asking the server. A download that was interrupted goes
// on where it stopped.
type HTTPS struct {
	CacheDir    string       // lsub's cache directory
	MaxBytes    int64        // limit for the sum of the files' sizes; 0: rootfs.DefaultMaxBytes
	MaxDownload int64        // limit for the download; 0: 64 GiB
	Log         *slog.Logger // may be nil

	Roots *x509.CertPool // authorities to trust; nil: the host's

	wait time.Duration // between attempts; 0: a second, then longer
}

var _ Source = (*HTTPS)(nil)

// URLRef names the archive at an https address. sha256 is that of the file as
// it is served, in hexadecimal digits; the error's hint says so where it is "".
func URLRef(address, sha256 string) (Ref, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" && u.Scheme == "https" {
		return Ref{}, hint.New(fmt.Errorf("%q is no address", address), "write https://HOST/PATH")
	}
	switch {
	case u.Scheme == "file":
		return Ref{}, hint.New(fmt.Errorf("%q is a file", address), "a file is installed with --from-file")
	case u.Scheme != "https":
		return Ref{}, hint.New(fmt.Errorf("%q is not an https address", address), "images are downloaded over https only")
	case u.User != nil:
		return Ref{}, errors.New("an address with a password in it would be stored and shown: it is not used")
	case sha256 == "":
		return Ref{}, hint.New(fmt.Errorf("nothing says what %s has to be", address),
			"use 'lsub install "+address+" --sha256 HEX', with the sum that the image's maker publishes")
	}
	sum, ok := parseSHA256(sha256)
	if !ok {
		return Ref{}, hint.New(fmt.Errorf("%q is no sha256 sum", sha256), "it has 64 hexadecimal digits")
	}
	return Ref{Source: "https", Version: strings.TrimPrefix(u.String(), "https:"), SHA256: sum}, nil
}

// parseSHA256 reads a sum as it is published: with or without "0x" or
// "sha256:" in front, in digits of either case.
func parseSHA256(text string) (sum string, ok bool) {
	sum = strings.ToLower(text)
	sum = strings.TrimPrefix(strings.TrimPrefix(sum, "0x"), "sha256:")
	return sum, len(sum) == 64 && strings.Trim(sum, "0123456789abcdef") == ""
}

// httpsPull is one Pull's work.
type httpsPull struct {
	cacheEntry
	src *HTTPS
	url *url.URL
	sum string // of the download
	web *web.Client
}

// Pull returns the image in the archive that ref names.
func (h *HTTPS) Pull(ctx context.Context, ref Ref, progress Progress) (*Image, error) {
	given := ref
	ref, err := URLRef(ref.String(), ref.SHA256)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(ref.String())
	if err != nil {
		return nil, err
	}
	ref.Arch = given.Arch
	p := &httpsPull{newCacheEntry(h.CacheDir, "url-"+ref.SHA256, ref, progress, h.Log), h, u, ref.SHA256, nil}
	rec, err := p.pull(ctx)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref, cachedir.NoSpace(err, h.CacheDir))
	}
	img := p.image(rec, distroName(path.Base(u.Path)))
	img.Name, img.Distro = cmp.Or(given.Label, img.Name), cmp.Or(given.Distro, img.Distro)
	return img, nil
}

func (p *httpsPull) pull(ctx context.Context) (*record, error) {
	if rec := p.record(); rec != nil {
		return rec, nil
	}
	lock, err := p.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	if rec := p.record(); rec != nil {
		return rec, nil
	}
	p.removeLeftovers()
	p.web = web.NewClient(p.src.Roots)
	defer p.web.Close()
	if err := os.MkdirAll(p.partialDir(), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(p.partialDir(), "download"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := p.download(ctx, f); err != nil {
		return nil, err
	}
	rec, err := p.pack(ctx, f)
	if err == nil || ctx.Err() == nil {
		f.Close() // or Windows keeps it
		p.dropPartial()
	}
	return rec, err
}

// pack checks the download and puts it into the cache.
func (p *httpsPull) pack(ctx context.Context, f *os.File) (*record, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	z, err := plainTar(ctx, f, p.src.MaxBytes, func(int64) {})
	if err != nil {
		return nil, err
	}
	defer z.Close()
	rec, err := p.save(func(w io.Writer) (*summary, *record, error) {
		limits := packedLimits(p.src.MaxBytes, info.Size())
		s, err := p.cacheEntry.pack(ctx, z, w, limits)
		return s, &record{Digest: "sha256:" + p.sum}, outOfProportion(err, limits, p.src.MaxBytes)
	})
	if isBehindLink(err) {
		return p.save(func(w io.Writer) (*summary, *record, error) {
			s, err := p.packLayers(ctx, treeFlattener(f.Name(), info.Size(), p.src.MaxBytes), w)
			return s, &record{Digest: "sha256:" + p.sum}, err
		})
	}
	if !isSaved(f.Name(), err) {
		return rec, err
	}
	rec, err = p.packSaved(ctx, f.Name())
	return rec, notForDistros(err)
}

// packSaved flattens the saved container image that was downloaded.
func (p *httpsPull) packSaved(ctx context.Context, path string) (*record, error) {
	t := &Tarball{CacheDir: p.src.CacheDir, Arch: p.arch, MaxBytes: p.src.MaxBytes}
	files, err := t.openSaved(ctx, path, p.progress)
	if err != nil {
		return nil, err
	}
	defer files.Close()
	c, layers, err := savedImage(ctx, files, cmp.Or(p.arch, runtime.GOARCH))
	if err != nil {
		return nil, err
	}
	return p.save(func(w io.Writer) (*summary, *record, error) {
		s, err := p.packLayers(ctx, &flattener{layers: layers, state: &rootfs.State{MaxBytes: p.src.MaxBytes}}, w)
		return s, &record{Digest: "sha256:" + p.sum, Config: &c.config}, err
	})
}

// download fills f until it has the right sum. What f has of an attempt before
// is gone on with; where that turns out to be something else, it starts anew.
func (p *httpsPull) download(ctx context.Context, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	resumed := info.Size() > 0
	for {
		if err := p.fill(ctx, f); err != nil {
			return web.Explain(ctx, p.url, err)
		}
		sum, err := sumOf(ctx, f)
		if err != nil {
			return err
		}
		if sum == "sha256:"+p.sum {
			return nil
		}
		if err := f.Truncate(0); err != nil {
			return err
		}
		if !resumed {
			return hint.New(fmt.Errorf("what %s serves has the sum %s, not sha256:%s", p.url.Host, sum, p.sum),
				"compare the sum with what the image's maker publishes; if it is right, do not use the file")
		}
		resumed = false
	}
}

func sumOf(ctx context.Context, f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	sum := newDigester()
	_, err := io.Copy(sum, ctxio.NewReader(ctx, f))
	return sum.String(), err
}

// attempts is how often in a row a server may give nothing.
const attempts = 4

// fill downloads to the end of the file, over interruptions.
func (p *httpsPull) fill(ctx context.Context, f *os.File) error {
	for failed := 0; ; {
		before, err := f.Seek(0, io.SeekEnd)
		if err != nil {
			return err
		}
		if err = p.request(ctx, f, before); err == nil {
			return nil
		}
		if web.Lasting(ctx, err) {
			return err
		}
		if after, _ := f.Seek(0, io.SeekCurrent); after > before {
			failed = 0
		}
		if failed++; failed == attempts {
			return err
		}
		p.log.Debug("the download stopped", "url", p.name, "err", err)
		wait := p.src.wait
		if wait == 0 {
			wait = time.Duration(failed) * time.Second
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

// request asks for the bytes from offset on and appends them to f.
func (p *httpsPull) request(ctx context.Context, f *os.File, offset int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url.String(), nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "lsub")
	if offset > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := p.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", offset)) {
			return &web.StatusError{Code: resp.StatusCode}
		}
	case http.StatusOK: // from its beginning
		if offset, err = 0, f.Truncate(0); err != nil {
			return err
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
	case http.StatusRequestedRangeNotSatisfiable:
		if offset > 0 {
			return nil // there is no more: its sum says whether that is right
		}
		fallthrough
	default:
		return &web.StatusError{Code: resp.StatusCode}
	}
	return p.receive(ctx, f, resp, offset)
}

func (p *httpsPull) receive(ctx context.Context, f *os.File, resp *http.Response, offset int64) error {
	most := p.src.MaxDownload
	if most == 0 {
		most = maxDownload
	}
	tooLarge := hint.New(fmt.Errorf("it has more than %d bytes", most), "check the address: no image is that large")
	if resp.ContentLength > most-offset {
		return tooLarge
	}
	step := Step{Text: "downloading", Done: offset, Bytes: true}
	if resp.ContentLength >= 0 {
		step.Total = offset + resp.ContentLength
	}
	body := &progressReader{r: io.LimitReader(ctxio.NewReader(ctx, resp.Body), most-offset+1), step: step, reported: offset, progress: p.progress}
	n, err := io.Copy(f, body)
	if err == nil && n > most-offset {
		return errors.Join(tooLarge, f.Truncate(0))
	}
	return err
}
