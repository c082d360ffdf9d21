package images

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"unicode"

	"github.com/lsub/lsub/hint"
)

// Catalogue lists images that servers offer. Implementations are safe for
// concurrent use.
type Catalogue interface {
	// List asks for the offers for one architecture, in a fixed order.
	List(ctx context.Context) ([]Offer, error)
}

// Offer is an image in a Catalogue: a name, and where to get what it means.
// Names are fit to be shown; the address is an https one and the sum is one.
type Offer struct {
	Name     string   // such as "ubuntu-24.04", in small letters
	Aliases  []string // further names, such as "ubuntu"
	Title    string   // for people
	Version  string   // "" where the catalogue knows none
	URL      string
	SHA256   string // of what is at URL
	Size     int64  // bytes to download; 0 where the catalogue does not say
	Squashfs bool   // it comes as a squashfs image only
}

// Ref names the image that is offered.
func (o Offer) Ref() (Ref, error) {
	if o.Squashfs {
		return Ref{}, hint.New(fmt.Errorf("%s comes as a squashfs image only", o.Name),
			"unpack it and install the tree as a tar archive with --from-file")
	}
	return URLRef(o.URL, o.SHA256)
}

// Resolve returns the first offer with the name, in letters of either case, and
// then the first with such an alias. The error's hint has the nearest names.
func Resolve(offers []Offer, name string) (Offer, error) {
	name = strings.ToLower(name)
	for _, o := range offers {
		if o.Name == name {
			return o, nil
		}
	}
	var near []string
	for _, o := range offers {
		if slices.Contains(o.Aliases, name) {
			return o, nil
		}
		if name != "" && strings.HasPrefix(o.Name, name) {
			near = append(near, o.Name)
		}
	}
	err := fmt.Errorf("no image %q is offered", name)
	if len(near) > 0 {
		err = hint.New(err, "there are "+strings.Join(near[:min(len(near), 8)], ", "))
	}
	return Offer{}, err
}

// documents gets what catalogues are made of.
type documents struct {
	address string
	arch    string
	roots   *x509.CertPool
	log     *slog.Logger
}

func newDocuments(address, arch string, roots *x509.CertPool, log *slog.Logger) documents {
	if arch == "" {
		arch = runtime.GOARCH
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return documents{address, arch, roots, log}
}

// get reads the document at the address, or at a path below it.
func (d documents) get(ctx context.Context, below string, most int64) ([]byte, error) {
	u, err := url.Parse(d.address)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", err)
	}
	if u.Scheme != "https" || u.Host == "" {
		return nil, hint.New(fmt.Errorf("catalogue %q is not an https address", d.address), "write https://HOST/PATH")
	}
	web := newWebClient(d.roots)
	defer web.close()
	data, err := web.get(ctx, u.JoinPath(below), most)
	if err != nil {
		return nil, fmt.Errorf("catalogue: %w", explainWeb(ctx, u, err))
	}
	return data, nil
}

// add appends an offer that can be trusted to be one; others are left out, so
// that a catalogue with one mistake still serves.
func (d documents) add(offers []Offer, o Offer) []Offer {
	o.Name = strings.ToLower(o.Name)
	o.Title, o.Version = printable(o.Title), printable(o.Version)
	sum, ok := parseSHA256(o.SHA256)
	_, err := URLRef(o.URL, o.SHA256)
	switch {
	case !ok || err != nil:
		d.log.Warn("catalogue entry has no https address with a sum", "catalogue", d.address, "entry", o.Name, "err", err)
		return offers
	case !offerName(o.Name):
		d.log.Warn("catalogue entry has no usable name", "catalogue", d.address, "entry", o.Name)
		return offers
	case slices.ContainsFunc(offers, func(before Offer) bool { return before.Name == o.Name }):
		d.log.Warn("catalogue has an entry twice", "catalogue", d.address, "entry", o.Name)
		return offers
	}
	o.SHA256 = sum
	o.Aliases = slices.DeleteFunc(o.Aliases, func(a string) bool { return !offerName(a) || a == o.Name })
	return append(offers, o)
}

// offerName tells whether a name is fit for the command line.
func offerName(name string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789.-_/+"
	return name != "" && len(name) <= 100 && strings.Trim(name, letters) == "" && name[0] != '-' && name[0] != '/'
}

// printable takes what a terminal would obey out of a text.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 100 {
		s = string(r[:100])
	}
	return s
}

// get reads a small document.
func (c *webClient) get(ctx context.Context, u *url.URL, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "lsub")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &statusError{resp.StatusCode}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", u, most)
	}
	return data, err
}
