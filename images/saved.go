package images

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/rootfs"
)

// savedFiles are the files of a saved container image: an OCI layout, or what
// docker save writes, as a directory or as a plain tar archive. It must be closed.
type savedFiles interface {
	open(name string) (io.ReadCloser, error) // fs.ErrNotExist where it is missing
	io.Closer
}

// savedDir is an image in a directory; nothing outside of it is read.
type savedDir struct{ *os.Root }

func (s savedDir) open(name string) (io.ReadCloser, error) {
	f, err := s.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		f.Close()
		return nil, errors.Join(err, fmt.Errorf("%.200q is not a regular file", name))
	}
	return f, nil
}

// savedTar is an image in a plain tar archive.
type savedTar struct {
	*os.File
	files map[string]span
}

// span is where a file's bytes are in an archive, or the name of the file that
// it is a link to: older dockers save a layer once.
type span struct {
	at, size int64
	link     string
}

// maxSavedFiles is how many files an archive of saved images may have.
const maxSavedFiles = 100_000

// openSavedTar takes f over.
func openSavedTar(ctx context.Context, f *os.File) (*savedTar, error) {
	s := &savedTar{f, map[string]span{}}
	tr := tar.NewReader(f)
	for len(s.files) < maxSavedFiles && ctx.Err() == nil {
		h, err := tr.Next()
		if err == io.EOF {
			return s, nil
		}
		if err != nil {
			f.Close()
			return nil, damaged(err)
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			f.Close()
			return nil, err
		}
		name := path.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeReg:
			s.files[name] = span{at: at, size: h.Size}
		case tar.TypeSymlink:
			s.files[name] = span{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			s.files[name] = span{link: path.Clean(h.Linkname)}
		}
	}
	f.Close()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, &rootfs.LimitError{What: "entries", Limit: maxSavedFiles}
}

func (s *savedTar) open(name string) (io.ReadCloser, error) {
	at, ok := s.files[path.Clean(name)]
	if ok && at.link != "" {
		at, ok = s.files[at.link]
	}
	if !ok || at.link != "" {
		return nil, fmt.Errorf("%.200q: %w", name, fs.ErrNotExist)
	}
	return io.NopCloser(io.NewSectionReader(s.File, at.at, at.size)), nil
}

// layout finds blobs by digest, as an OCI layout has them.
type layout struct{ savedFiles }

var _ blobs = layout{}

func (l layout) blob(_ context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	if d.Digest.Algorithm != "sha256" || len(d.Digest.Hex) != 64 {
		return nil, fmt.Errorf("%.100q is no sha256 digest", d.Digest)
	}
	return l.open("blobs/sha256/" + d.Digest.Hex)
}

func (l layout) manifest(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	return l.blob(ctx, d)
}

// savedImage is the image of a saved one for an architecture, with its layers.
func savedImage(ctx context.Context, files savedFiles, arch string) (*container, []layer, error) {
	data, err := readSaved(files, "index.json", maxManifest)
	if errors.Is(err, fs.ErrNotExist) {
		return dockerImage(files, arch)
	}
	if err != nil {
		return nil, nil, err
	}
	m, err := parseManifest(data)
	if err != nil {
		return nil, nil, err
	}
	if err := onlyOne(m.Manifests); err != nil {
		return nil, nil, err
	}
	c, err := findImage(ctx, layout{files}, v1.Descriptor{Digest: dataDigest(data)}, data, arch)
	if err != nil {
		return nil, nil, missingPart(err)
	}
	var layers []layer
	for i, d := range c.layers {
		layers = append(layers, layer{
			digest: d.Digest.String(), diffID: c.diffs[i], size: d.Size,
			open: func() (io.ReadCloser, error) {
				r, err := layout{files}.blob(ctx, d)
				return r, missingPart(err)
			},
		})
	}
	return c, layers, nil
}

// dataDigest is the digest of data.
func dataDigest(data []byte) v1.Hash {
	sum := newDigester()
	sum.Write(data)
	_, hex, _ := strings.Cut(sum.String(), ":")
	return v1.Hash{Algorithm: "sha256", Hex: hex}
}

// onlyOne refuses a layout of several images: which is meant, nobody said.
func onlyOne(list []v1.Descriptor) error {
	names := map[string]bool{}
	for _, d := range list {
		if d.Platform == nil {
			names[d.Annotations["org.opencontainers.image.ref.name"]+"@"+d.Digest.String()] = true
		}
	}
	if len(names) > 1 {
		return severalImages(len(names))
	}
	return nil
}

func severalImages(n int) error {
	return hint.New(fmt.Errorf("holds %d images", n), "save just the one to install")
}

func missingPart(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return hint.New(fmt.Errorf("lacks a part of the image: %w", err), "save it again, for this host's platform")
	}
	return err
}

// dockerManifest is an entry of docker save's manifest.json.
type dockerManifest struct {
	Config string
	Layers []string
}

// dockerImage reads what dockers before 25 save: the layers are plain archives
// that their configuration's sums verify, and that is known by its name alone.
func dockerImage(files savedFiles, arch string) (*container, []layer, error) {
	data, err := readSaved(files, "manifest.json", maxManifest)
	if err != nil {
		return nil, nil, missingPart(err)
	}
	var list []dockerManifest
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, nil, fmt.Errorf("manifest.json cannot be read: %w", err)
	}
	if len(list) != 1 {
		return nil, nil, severalImages(len(list))
	}
	config, err := readSaved(files, list[0].Config, maxConfig)
	if err != nil {
		return nil, nil, missingPart(err)
	}
	c, err := parseConfig(config, arch)
	if err != nil {
		return nil, nil, err
	}
	c.digest = dataDigest(config).String()
	if len(c.diffs) != len(list[0].Layers) {
		return nil, nil, fmt.Errorf("image has %d layers, but its configuration names %d", len(list[0].Layers), len(c.diffs))
	}
	var layers []layer
	for i, name := range list[0].Layers {
		layers = append(layers, layer{digest: name, diffID: c.diffs[i], open: func() (io.ReadCloser, error) {
			r, err := files.open(name)
			return r, missingPart(err)
		}})
	}
	return c, layers, nil
}

func readSaved(files savedFiles, name string, most int64) ([]byte, error) {
	r, err := files.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return data, err
}
