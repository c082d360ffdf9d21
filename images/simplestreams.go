package images

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// Simplestreams is the Catalogue of an image server for LXC and its kin: an
// index that names lists of products, each with versions of its root file
// system. Of each product for the architecture the newest one is offered.
type Simplestreams struct {
	URL  string       // of the server; streams/v1/index.json is below it
	Arch string       // as GOARCH, whose names Debian's are; "" is the host's
	Log  *slog.Logger // told about entries that are left out; may be nil

	roots *x509.CertPool
}

var _ Catalogue = (*Simplestreams)(nil)

// Limits of a server's documents.
const (
	maxStreamIndex = 4 << 20
	maxStreamList  = 64 << 20
	maxStreamLists = 16
)

type streamIndex struct {
	Index map[string]struct {
		DataType string `json:"datatype"`
		Path     string `json:"path"`
	} `json:"index"`
}

type streamProduct struct {
	Arch, OS, Release, Variant string
	ReleaseTitle               string `json:"release_title"`
	Aliases                    string // with commas between them
	Versions                   map[string]struct {
		Items map[string]streamItem
	}
}

type streamItem struct {
	FType, Path, SHA256 string
	Size                int64
}

// List asks for the index and the lists that it names.
func (s *Simplestreams) List(ctx context.Context) ([]Offer, error) {
	d := newDocuments(s.URL, s.Arch, s.roots, s.Log)
	data, err := d.get(ctx, "streams/v1/index.json", maxStreamIndex)
	if err != nil {
		return nil, err
	}
	paths, err := parseStreamIndex(data)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", s.URL, err)
	}
	var offers []Offer
	for _, path := range paths {
		data, err := d.get(ctx, path, maxStreamList)
		if err != nil {
			return nil, err
		}
		if offers, err = parseStreamList(data, d, offers); err != nil {
			return nil, fmt.Errorf("catalogue %s: %s: %w", s.URL, path, err)
		}
	}
	return offers, nil
}

// parseStreamIndex returns the paths of the lists of images, in order.
func parseStreamIndex(data []byte) ([]string, error) {
	var index streamIndex
	if err := json.Unmarshal(data, &index); err != nil {
		return nil, fmt.Errorf("index cannot be read: %w", err)
	}
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(index.Index)) {
		e := index.Index[name]
		if e.DataType != "image-downloads" {
			continue
		}
		if !fs.ValidPath(e.Path) {
			return nil, fmt.Errorf("index names %.200q, out of the server's tree", e.Path)
		}
		paths = append(paths, e.Path)
	}
	if len(paths) == 0 || len(paths) > maxStreamLists {
		return nil, fmt.Errorf("index names %d lists of images; 1 to %d can be read", len(paths), maxStreamLists)
	}
	return paths, nil
}

// parseStreamList adds the offers of a list for the architecture.
func parseStreamList(data []byte, d documents, offers []Offer) ([]Offer, error) {
	var list struct{ Products map[string]streamProduct }
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if list.Products == nil {
		return nil, errors.New("has no products")
	}
	base, err := url.Parse(d.address)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(list.Products)) {
		p := list.Products[name]
		if p.Arch != d.arch {
			continue
		}
		version, item := p.newest()
		if version == "" {
			continue // only images for virtual machines
		}
		if !fs.ValidPath(item.Path) || item.Size < 0 {
			d.log.Warn("catalogue entry has no usable path", "catalogue", d.address, "entry", name)
			continue
		}
		o := Offer{
			Name: strings.ReplaceAll(p.OS+"-"+p.Release, " ", "-"), Title: strings.TrimSpace(p.OS + " " + p.ReleaseTitle),
			Version: version, URL: base.JoinPath(item.Path).String(), SHA256: item.SHA256, Size: item.Size,
			Squashfs: item.FType == "squashfs",
		}
		if p.Variant != "" && p.Variant != "default" {
			o.Name += "-" + p.Variant
		}
		for alias := range strings.SplitSeq(p.Aliases, ",") {
			o.Aliases = append(o.Aliases, strings.ToLower(strings.TrimSpace(alias)))
		}
		offers = d.add(offers, o)
	}
	return offers, nil
}

// newest returns the last version that has a root file system as a tar archive,
// or else as a squashfs image. Versions are dates, so they sort as text.
func (p streamProduct) newest() (version string, item streamItem) {
	for _, v := range slices.Sorted(maps.Keys(p.Versions)) {
		items := p.Versions[v].Items
		for _, name := range slices.Sorted(maps.Keys(items)) {
			it := items[name]
			tar := it.FType == "root.tar.xz"
			if tar || it.FType == "squashfs" && item.FType != "root.tar.xz" {
				version, item = v, it
			}
		}
	}
	return version, item
}
