package images

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/lsub/lsub/images/internal/cachedir"
)

// Outgoing is a container image with one layer. The layer is the plain tar
// archive that is written to it; after Finish the image can be stored as a
// layout or pushed.
//
//	o := images.NewOutgoing(layerFile, about)
//	io.Copy(o, archive)
//	err := o.Finish()
//	err = o.Push(ctx, ref, progress)
//
// It is for one goroutine.
type Outgoing struct {
	about  About
	z      compressor
	plain  *digester
	packed *digester
	image  v1.Image
	layer  *fileLayer
}

// About is the description that a container image carries.
type About struct {
	Name    string    // of the distro
	Arch    string    // as GOARCH
	Created time.Time // of the export
	Version string    // of lsub
}

// distroPath is the PATH of what a container engine starts.
const distroPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// NewOutgoing returns an image whose layer is written to layer, compressed. The
// caller keeps it open until the image has gone out.
func NewOutgoing(layer *os.File, about About) (*Outgoing, error) {
	o := &Outgoing{about: about, plain: newDigester(), packed: newDigester()}
	at, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil, err
	}
	o.layer = &fileLayer{file: layer, at: at}
	o.z, err = newCompressor(io.MultiWriter(layer, o.packed), FormatTarGzip) // the form that every engine takes
	return o, err
}

func (o *Outgoing) Write(p []byte) (int, error) {
	o.plain.Write(p)
	return o.z.Write(p)
}

// Finish completes the image, after the archive's last byte.
func (o *Outgoing) Finish() error {
	if err := o.z.Close(); err != nil {
		return err
	}
	var err error
	l := o.layer
	l.size = o.packed.n
	if l.diffID, err = v1.NewHash(o.plain.String()); err == nil {
		l.digest, err = v1.NewHash(o.packed.String())
	}
	if err != nil {
		return err
	}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, History: v1.History{
		Created: v1.Time{Time: o.about.Created}, CreatedBy: "lsub export", Comment: "lsub " + o.about.Version,
	}})
	if err != nil {
		return err
	}
	cf, err := img.ConfigFile()
	if err != nil {
		return err
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture, cf.Created = "linux", o.about.Arch, v1.Time{Time: o.about.Created}
	cf.Config.Env, cf.Config.Cmd = []string{distroPath}, []string{"/bin/sh"}
	cf.Config.Labels = map[string]string{"org.opencontainers.image.title": o.about.Name}
	o.image, err = mutate.ConfigFile(img, cf)
	return err
}

// fileLayer is a compressed layer in a part of a file.
type fileLayer struct {
	file           *os.File
	at, size       int64
	digest, diffID v1.Hash
}

var _ v1.Layer = (*fileLayer)(nil)

func (l *fileLayer) Digest() (v1.Hash, error)             { return l.digest, nil }
func (l *fileLayer) DiffID() (v1.Hash, error)             { return l.diffID, nil }
func (l *fileLayer) Size() (int64, error)                 { return l.size, nil }
func (l *fileLayer) MediaType() (types.MediaType, error)  { return types.OCILayer, nil }
func (l *fileLayer) Compressed() (io.ReadCloser, error)   { return io.NopCloser(l.section()), nil }
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) { return decompress(l.section()) }
func (l *fileLayer) section() io.Reader                   { return io.NewSectionReader(l.file, l.at, l.size) }

// small are the files of a layout beside the layer, by name.
func (o *Outgoing) small() (map[string][]byte, error) {
	config, err := o.image.RawConfigFile()
	if err != nil {
		return nil, err
	}
	manifest, err := o.image.RawManifest()
	if err != nil {
		return nil, err
	}
	tag := tagFor(o.about.Name)
	index, err := json.Marshal(v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: []v1.Descriptor{{
		MediaType: types.OCIManifestSchema1, Size: int64(len(manifest)), Digest: dataDigest(manifest),
		Platform: &v1.Platform{OS: "linux", Architecture: o.about.Arch},
		// docker and podman take the names from here.
		Annotations: map[string]string{"org.opencontainers.image.ref.name": "latest", "io.containerd.image.name": "docker.io/library/" + tag},
	}}})
	if err != nil {
		return nil, err
	}
	blob := func(d v1.Hash) string { return "blobs/sha256/" + d.Hex }
	// For engines that know only what "docker save" wrote before there was OCI.
	old, err := json.Marshal([]struct {
		Config   string
		RepoTags []string
		Layers   []string
	}{{blob(dataDigest(config)), []string{tag}, []string{blob(o.layer.digest)}}})
	return map[string][]byte{
		"oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`), "index.json": index, "manifest.json": old,
		blob(dataDigest(config)): config, blob(dataDigest(manifest)): manifest,
	}, err
}

// validRepository is what docker wants of the last part of a name.
var validRepository = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*$`)

// tagFor makes a container image's name of a distro's.
func tagFor(distro string) string {
	if distro = strings.ToLower(distro); !validRepository.MatchString(distro) {
		distro = "distro"
	}
	return distro + ":latest"
}

// layerName is where the layer is while its digest is not known.
const layerName = "layer"

// LayoutDir makes the new directory dir and stores an image in it, as an OCI
// layout, of the archive that write writes. It is for its user alone, since
// distros hold secrets. On an error there is no directory.
func LayoutDir(dir string, about About, write func(io.Writer) error) (err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.MkdirAll(filepath.Join(dir, "blobs/sha256"), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, layerName), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	o, err := fill(f, about, write)
	if err != nil {
		return err
	}
	files, err := o.small()
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), filepath.Join(dir, "blobs/sha256", o.layer.digest.Hex))
}

// fill makes an image of what write writes.
func fill(layer *os.File, about About, write func(io.Writer) error) (*Outgoing, error) {
	o, err := NewOutgoing(layer, about)
	if err != nil {
		return nil, err
	}
	if err := write(o); err != nil {
		return nil, finish(o.z, err)
	}
	return o, o.Finish()
}

// LayoutArchive stores an image in the empty file f, as a tar archive with an
// OCI layout, of the archive that write writes.
func LayoutArchive(f *os.File, about About, write func(io.Writer) error) error {
	// The layer goes straight to its place; its header follows when its name
	// and length are known.
	if _, err := f.Seek(tarBlock, io.SeekStart); err != nil {
		return err
	}
	o, err := fill(f, about, write)
	if err != nil {
		return err
	}
	header := func(name string, size int64) ([]byte, error) {
		var b bytes.Buffer
		err := tar.NewWriter(&b).WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: about.Created.Truncate(time.Second), Format: tar.FormatGNU,
		})
		return b.Bytes(), err
	}
	h, err := header("blobs/sha256/"+o.layer.digest.Hex, o.layer.size)
	if err == nil && len(h) != tarBlock {
		err = fmt.Errorf("layer of %d bytes has a header of %d", o.layer.size, len(h))
	}
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(h, 0); err != nil {
		return err
	}
	rest := bytes.NewBuffer(make([]byte, -o.layer.size&(tarBlock-1)))
	files, err := o.small()
	if err != nil {
		return err
	}
	tw := tar.NewWriter(rest)
	for name, data := range files {
		err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(data)), Mode: 0o644, ModTime: about.Created.Truncate(time.Second)})
		if err != nil {
			return err
		}
		if _, err := tw.Write(data); err != nil {
			return err
		}
	}
	if err := tw.Close(); err != nil {
		return err
	}
	_, err = f.Write(rest.Bytes())
	return err
}

// Push makes an image of the archive that write writes, and pushes it to the
// registry that ref names, as oci:REGISTRY/REPOSITORY:TAG. The layer is kept in
// cacheDir meanwhile.
func Push(ctx context.Context, ref Ref, cacheDir string, about About, progress Progress, write func(io.Writer) error) (err error) {
	parsed, err := ref.parse()
	if err != nil {
		return err
	}
	tag, ok := parsed.(name.Tag)
	if !ok {
		return fmt.Errorf("%s has a digest, which nobody knows before", ref)
	}
	reg, err := openRegistry(tag, ref.Insecure, remote.Backoff{})
	if err != nil {
		return err
	}
	defer reg.close()
	if err := mayPush(ctx, tag, reg, progress); err != nil {
		return err
	}
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(cacheDir, "export-")
	if err != nil {
		return err
	}
	unnamed := os.Remove(f.Name()) == nil // so that nothing is left of it, however lsub ends; Windows has it wait
	defer func() {
		err = errors.Join(err, f.Close())
		if !unnamed {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	o, err := fill(f, about, write)
	if err != nil {
		return cachedir.NoSpace(err, cacheDir)
	}
	return push(ctx, tag, reg, o.image, progress)
}
