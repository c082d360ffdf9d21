package catalogue

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
	"strconv"
	"strings"

	"github.com/lsub/lsub/images"
)

// Simplestreams is the Catalogue of an image server for LXC and its kin: an
// index that names lists of products, each with versions of its root file
// system. Of each product the newest one is offered.
type Simplestreams struct {
	URL string       // of the server; streams/v1/index.json is below it
	Log *slog.Logger // told about entries that are left out; may be nil

	// Roots are the authorities to trust; nil means the host's.
	Roots *x509.CertPool
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

// Address returns the server's URL.
func (s *Simplestreams) Address() string { return s.URL }

// List asks for the index and the lists that it names. The newest release of
// a distribution has the distribution's name as an alias.
func (s *Simplestreams) List(ctx context.Context) ([]Offer, error) {
	d := newDocuments(s.URL, s.Roots, s.Log)
	data, err := d.get(ctx, "streams/v1/index.json", maxStreamIndex)
	if err != nil {
		return nil, err
	}
	paths, err := parseStreamIndex(data)
	if err != nil {
		return nil, fmt.Errorf("catalogue %s: %w", s.URL, err)
	}
	for _, path := range paths {
		data, err := d.get(ctx, path, maxStreamList)
		if err != nil {
			return nil, err
		}
		if err := parseStreamList(data, d); err != nil {
			return nil, fmt.Errorf("catalogue %s: %s: %w", s.URL, path, err)
		}
	}
	return d.offers, nil
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

// parseStreamList adds the offers of a list.
func parseStreamList(data []byte, d *documents) error {
	var list struct{ Products map[string]streamProduct }
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if list.Products == nil {
		return errors.New("has no products")
	}
	base, err := url.Parse(d.address)
	if err != nil {
		return err
	}
	newest := newestReleases(list.Products)
	for _, name := range slices.Sorted(maps.Keys(list.Products)) {
		p := list.Products[name]
		version, item := p.newest()
		if version == "" {
			continue // only images for virtual machines
		}
		if !fs.ValidPath(item.Path) {
			d.log.Warn("catalogue entry has no usable path", "catalogue", d.address, "entry", shown(name))
			continue
		}
		o := Offer{
			Name: p.name(), Title: strings.TrimSpace(p.OS + " " + p.ReleaseTitle), Arch: p.Arch,
			Version: version, URL: base.JoinPath(item.Path).String(), SHA256: item.SHA256, Size: item.Size,
		}
		for alias := range strings.SplitSeq(p.Aliases, ",") {
			o.Aliases = append(o.Aliases, strings.ToLower(strings.TrimSpace(alias)))
		}
		if newest[p.family()] == p.Release && p.plain() {
			o.Aliases = append(o.Aliases, strings.ToLower(p.OS))
		}
		d.add(o)
	}
	return nil
}

// plain tells the image without anything that others lack.
func (p *streamProduct) plain() bool { return p.Variant == "" || p.Variant == "default" }

func (p *streamProduct) name() string {
	name := p.OS + "-" + p.Release
	if !p.plain() {
		name += "-" + p.Variant
	}
	return strings.ReplaceAll(name, " ", "-")
}

// family is what the newest release is looked for in.
func (p *streamProduct) family() string { return p.OS + " " + p.Arch }

// newestReleases returns the release of each family that its name alone means.
func newestReleases(products map[string]streamProduct) map[string]string {
	releases := map[string][]string{}
	systems := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(products)) {
		p := products[name]
		if version, _ := p.newest(); version != "" && p.plain() {
			releases[p.family()] = append(releases[p.family()], p.Release)
			systems[p.family()] = p.OS
		}
	}
	newest := map[string]string{}
	for family, list := range releases {
		newest[family] = newestRelease(systems[family], list)
	}
	return newest
}

// newestRelease is the one of the highest number, or the only one. Code names
// have no order: "" says so, except for the suite that "debian" means anywhere.
func newestRelease(system string, releases []string) string {
	if strings.EqualFold(system, "debian") && slices.Contains(releases, images.DefaultSuite) {
		return images.DefaultSuite
	}
	if len(releases) == 1 {
		return releases[0]
	}
	best := ""
	for _, r := range releases {
		if n := releaseNumber(r); n != nil && slices.Compare(n, releaseNumber(best)) > 0 {
			best = r
		}
	}
	return best
}

// releaseNumber reads the number that a release starts with, such as 3, 22 of
// "3.22"; nil is for one that starts with none.
func releaseNumber(release string) []int {
	var number []int
	for part := range strings.SplitSeq(release, ".") {
		digits := len(part) - len(strings.TrimLeft(part, "0123456789"))
		n, err := strconv.Atoi(part[:digits])
		if err != nil {
			break
		}
		number = append(number, n)
		if digits < len(part) {
			break
		}
	}
	return number
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
