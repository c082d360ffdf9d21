package catalogue

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/internal/web"
	"github.com/lsub/lsub/printable"
)

// Catalogue is a server's list of images. Implementations are safe for
// concurrent use.
type Catalogue interface {
	// Address identifies the catalogue: where it is.
	Address() string

	// List asks the server for its offers, for all architectures, in an order
	// that stays the same.
	List(ctx context.Context) ([]Offer, error)
}

// Addresses of the default catalogues.
const (
	wslManifestURL = "https://raw.githubusercontent.com/microsoft/WSL/master/distributions/DistributionInfo.json"
	lxcImagesURL   = "https://images.linuxcontainers.org"
)

// Defaults are WSL's own manifest and the LXC image server.
func Defaults(log *slog.Logger) []Catalogue {
	return []Catalogue{At(wslManifestURL, log), At(lxcImagesURL, log)}
}

// At is the catalogue at an https address: a DistributionInfo.json as
// WSL reads it where that ends in ".json", otherwise a simplestreams server.
// A bad address shows when the catalogue is asked. log may be nil.
func At(address string, log *slog.Logger) Catalogue {
	if strings.HasSuffix(strings.ToLower(address), ".json") {
		return &WSL{URL: address, Log: log}
	}
	return &Simplestreams{URL: address, Log: log}
}

// Offer is an image in a Catalogue. Its name is printable, and its address and
// sum are well formed.
type Offer struct {
	Name    string   `json:"name"`              // such as "ubuntu-24.04", in small letters
	Aliases []string `json:"aliases,omitempty"` // further names, such as "ubuntu"
	Title   string   `json:"title,omitempty"`   // for people
	Version string   `json:"version,omitempty"` // "" where the catalogue knows none
	Arch    string   `json:"arch"`              // as GOARCH
	URL     string   `json:"url"`
	SHA256  string   `json:"sha256"`         // of what is at URL
	Size    int64    `json:"size,omitempty"` // bytes to download; 0 where the catalogue does not say
}

// Ref returns the reference by which package images installs the offer. Its
// label is the offer's name with its version, or with the beginning of its sum.
func (o Offer) Ref() (images.Ref, error) {
	ref, err := images.URLRef(o.URL, o.SHA256)
	if err != nil {
		return images.Ref{}, err
	}
	version := o.Version
	if version == "" {
		version = "sha256:" + ref.SHA256[:12]
	}
	ref.Label = o.Name + "@" + version
	return ref, nil
}

// usable says what is wrong with an offer, or nil.
func (o Offer) usable() error {
	if !offerName(o.Name) {
		return errors.New("it has no usable name")
	}
	if o.Size < 0 {
		return errors.New("its size is below zero")
	}
	_, err := images.URLRef(o.URL, o.SHA256)
	return err
}

// documents gets what catalogues are made of.
type documents struct {
	address string
	roots   *x509.CertPool
	log     *slog.Logger
	offers  []Offer
	have    map[string]bool // name and architecture of the offers
}

func newDocuments(address string, roots *x509.CertPool, log *slog.Logger) *documents {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &documents{address: address, roots: roots, log: log, have: map[string]bool{}}
}

// get reads the document at the address, or at a path below it.
func (d *documents) get(ctx context.Context, below string, most int64) ([]byte, error) {
	u, err := url.Parse(d.address)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" {
		return nil, hint.New(fmt.Errorf("catalogue %q is not an https address", d.address), "write https://HOST/PATH")
	}
	client := web.NewClient(d.roots)
	defer client.Close()
	data, err := client.Get(ctx, u.JoinPath(below), most)
	if err != nil {
		return nil, web.Explain(ctx, u, err)
	}
	return data, nil
}

// add appends an offer that can be trusted to be one; others are left out, so
// that a catalogue with one mistake still serves.
func (d *documents) add(o Offer) {
	o.Name = strings.ToLower(o.Name)
	o.Title, o.Version = shown(o.Title), shown(o.Version)
	key := o.Name + " " + o.Arch
	err := o.usable()
	if err == nil && d.have[key] {
		err = errors.New("it is there twice")
	}
	if err != nil {
		d.log.Warn("catalogue entry is left out", "catalogue", d.address, "entry", shown(o.Name), "err", err)
		return
	}
	d.have[key] = true
	ref, _ := images.URLRef(o.URL, o.SHA256) // which usable has read
	o.URL, o.SHA256 = ref.String(), ref.SHA256
	o.Aliases = slices.DeleteFunc(o.Aliases, func(a string) bool { return !offerName(a) || a == o.Name })
	d.offers = append(d.offers, o)
}

// offerName tells whether a name is fit for the command line.
func offerName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_/+"
	return name != "" && len(name) <= 100 && strings.Trim(name, letters) == "" && name[0] != '-' && name[0] != '/'
}

// shown returns a text of a catalogue for people.
func shown(s string) string {
	s = printable.Line(s)
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100])
	}
	return s
}
