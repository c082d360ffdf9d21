package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/ctxio"
)

// Limits of what describes a container image.
const (
	maxManifest = 4 << 20 // bytes, as registries have it
	maxConfig   = 8 << 20
	maxIndexes  = 3 // one inside the other
)

// blobs is where a container image's parts are: a registry or a file. What it
// gives is not verified yet. It is safe for concurrent use.
type blobs interface {
	// manifest opens a manifest or an index.
	manifest(context.Context, v1.Descriptor) (io.ReadCloser, error)
	// blob opens a configuration or a layer.
	blob(context.Context, v1.Descriptor) (io.ReadCloser, error)
}

// container is one container image for one platform, found and verified but
// for its layers.
type container struct {
	digest string // of its manifest, or of its configuration where it has none
	config Config
	layers []v1.Descriptor
	diffs  []string // of the plain layers
}

// readBlob reads what a descriptor names, whole, and verifies it.
func readBlob(ctx context.Context, open func(context.Context, v1.Descriptor) (io.ReadCloser, error),
	d v1.Descriptor, most int64) ([]byte, error) {
	if d.Size > most {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", d.Digest, d.Size, most)
	}
	r, err := open(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(ctxio.NewReader(ctx, r), most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", d.Digest, most)
	}
	sum := newDigester()
	sum.Write(data)
	return data, wrongDigest(sum, d)
}

// wrongDigest returns an error where what was summed up is not what d names.
func wrongDigest(sum *digester, d v1.Descriptor) error {
	const again = "try again; if it stays so, the registry or something on the way to it changes data"
	if d.Size > 0 && sum.n != d.Size {
		return hint.New(fmt.Errorf("got %d bytes of %s, which has %d", sum.n, d.Digest, d.Size), again)
	}
	if sum.String() != d.Digest.String() {
		return hint.New(fmt.Errorf("got %s in place of %s", sum, d.Digest), again)
	}
	return nil
}

// anyManifest is what tells an index from a manifest; registries and files may
// leave the media type out.
type anyManifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	Config        *v1.Descriptor  `json:"config"`
	Layers        []v1.Descriptor `json:"layers"`
	Manifests     []v1.Descriptor `json:"manifests"`
}

func parseManifest(data []byte) (*anyManifest, error) {
	m := new(anyManifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("manifest cannot be read: %w", err)
	}
	switch {
	case m.SchemaVersion == 1:
		return nil, hint.New(errors.New("image is of the old form, schema 1"), "choose an image from after 2017")
	case m.Manifests == nil && (m.Config == nil || m.Layers == nil):
		return nil, errors.New("manifest is neither an image's nor an index")
	}
	return m, nil
}

// findImage follows the manifest in data, whose descriptor is top, to the image
// for linux/arch.
func findImage(ctx context.Context, src blobs, top v1.Descriptor, data []byte, arch string) (*container, error) {
	for range maxIndexes {
		m, err := parseManifest(data)
		if err != nil {
			return nil, err
		}
		if m.Manifests == nil {
			return readContainer(ctx, src, top, m, arch)
		}
		if top, err = choose(m.Manifests, arch); err != nil {
			return nil, err
		}
		if data, err = readBlob(ctx, src.manifest, top, maxManifest); err != nil {
			return nil, err
		}
	}
	return nil, errors.New("image has too many indexes, one inside the other")
}

// choose picks the manifest for linux/arch. One without a platform may be of
// any: what it is, its configuration says.
func choose(list []v1.Descriptor, arch string) (v1.Descriptor, error) {
	var there []string
	best, bestRank := v1.Descriptor{}, 0
	for _, d := range list {
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // a signature or a bill of materials, listed like an image
		}
		rank := 1
		if p := d.Platform; p != nil {
			there = append(there, p.String())
			if rank = 0; p.OS == "linux" && p.Architecture == arch {
				rank = variantRank(arch, p.Variant)
			}
		}
		if rank > bestRank {
			best, bestRank = d, rank
		}
	}
	if bestRank == 0 {
		return best, wrongPlatform(there, arch)
	}
	return best, nil
}

// variantRank says how well a variant of an architecture does; 0: not at all.
// Without a name it is the one that runs everywhere.
func variantRank(arch, variant string) int {
	switch {
	case variant == "":
		return 4
	case arch == "arm64" && variant == "v8", arch == "amd64" && variant == "v1":
		return 3
	}
	return 0
}

func wrongPlatform(there []string, arch string) error {
	there = slices.DeleteFunc(there, func(p string) bool { return p == "" || strings.HasPrefix(p, "unknown") })
	slices.Sort(there)
	there = slices.Compact(there)
	if len(there) == 0 {
		return fmt.Errorf("image has nothing for linux/%s", arch)
	}
	return hint.New(fmt.Errorf("image has nothing for linux/%s", arch), "it is for "+strings.Join(there, ", "))
}

// readContainer reads the configuration that a manifest names.
func readContainer(ctx context.Context, src blobs, top v1.Descriptor, m *anyManifest, arch string) (*container, error) {
	if mt := m.Config.MediaType; mt != "" && !mt.IsConfig() {
		return nil, hint.New(fmt.Errorf("it is no container image but %.100q", mt), "choose an image that has a root file system")
	}
	data, err := readBlob(ctx, src.blob, *m.Config, maxConfig)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	c, err := parseConfig(data, arch)
	if err != nil {
		return nil, err
	}
	c.digest, c.layers = top.Digest.String(), m.Layers
	if len(c.layers) != len(c.diffs) {
		return nil, fmt.Errorf("image has %d layers, but its configuration names %d", len(c.layers), len(c.diffs))
	}
	if len(c.layers) > maxLayers {
		return nil, fmt.Errorf("image has %d layers, more than %d", len(c.layers), maxLayers)
	}
	for _, l := range c.layers {
		if l.Digest.Algorithm != "sha256" {
			return nil, fmt.Errorf("layer has the digest %.100q, which is not sha256", l.Digest)
		}
	}
	return c, nil
}

// parseConfig reads an image's configuration, and refuses one of another
// platform, whatever the index says.
func parseConfig(data []byte, arch string) (*container, error) {
	cf, err := v1.ParseConfigFile(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("configuration cannot be read: %w", err)
	}
	if cf.OS != "" && cf.OS != "linux" || cf.Architecture != "" && cf.Architecture != arch || variantRank(arch, cf.Variant) == 0 {
		p := v1.Platform{OS: cf.OS, Architecture: cf.Architecture, Variant: cf.Variant}
		return nil, wrongPlatform([]string{p.String()}, arch)
	}
	c := &container{config: Config{
		User: cf.Config.User, Env: cf.Config.Env, Entrypoint: cf.Config.Entrypoint,
		Cmd: cf.Config.Cmd, WorkingDir: cf.Config.WorkingDir,
	}}
	for _, d := range cf.RootFS.DiffIDs {
		c.diffs = append(c.diffs, d.String())
	}
	return c, nil
}
