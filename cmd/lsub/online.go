package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/machine"
)

// catalogueOpener gives the catalogues in which short names are looked up.
type catalogueOpener func(log *slog.Logger) []images.Catalogue

// onlineImages is what "list --online --json" prints.
type onlineImages struct {
	Images     []onlineImage     `json:"images"`
	Catalogues []onlineCatalogue `json:"catalogues"`
}

type onlineImage struct {
	images.Offer
	From string `json:"from"` // a catalogue's address, "" for what lsub makes itself
}

type onlineCatalogue struct {
	Address string     `json:"address"`
	Asked   *time.Time `json:"asked,omitempty"` // when it offered this
	Cached  bool       `json:"cached"`
	Error   string     `json:"error,omitempty"`
}

func (a *app) listOnline(c *cli.Context) error {
	listings, err := a.online(c.Context, c.Bool("refresh"))
	if err != nil {
		return err
	}
	if err := context.Cause(c.Context); err != nil {
		return err
	}
	all := onlineImages{Images: []onlineImage{}, Catalogues: []onlineCatalogue{}}
	if a.bootstraps() {
		for _, name := range images.Names() {
			all.Images = append(all.Images, onlineImage{Offer: images.Offer{Name: name, Arch: runtime.GOARCH, Title: "Debian, made by lsub"}})
		}
	}
	for _, l := range listings {
		about := onlineCatalogue{Address: l.Address, Cached: l.Cached}
		if l.Err != nil {
			about.Error = l.Err.Error()
		}
		if !l.Asked.IsZero() {
			about.Asked = &l.Asked
		}
		all.Catalogues = append(all.Catalogues, about)
		for _, o := range l.Offers {
			if o.Arch == runtime.GOARCH && !a.makes(o.Name) {
				all.Images = append(all.Images, onlineImage{o, l.Address})
			}
		}
	}
	switch {
	case c.Bool("json"):
		return printJSON(a.stdout, all)
	case c.Bool("quiet"):
		for _, o := range all.Images {
			fmt.Fprintln(a.stdout, o.Name)
		}
		return nil
	}
	for _, l := range listings {
		if l.Cached && l.Err == nil {
			a.note("note", fmt.Sprintf("%s was asked %s; --refresh asks it again", l.Host(), ago(l.Asked)))
		}
	}
	return table(a.stdout, onlineRows(all.Images, c.Bool("verbose")))
}

func onlineRows(offers []onlineImage, verbose bool) [][]string {
	rows := [][]string{{"NAME", "TITLE", "FROM"}}
	if verbose {
		rows[0] = append(rows[0], "VERSION", "SIZE", "ALSO CALLED")
	}
	for _, o := range offers {
		from := images.Listing{Address: o.From}
		row := []string{o.Name, cmp.Or(o.Title, "-"), cmp.Or(from.Host(), "built in")}
		if verbose {
			bytes := "-"
			if o.Size > 0 {
				bytes = size(uint64(o.Size))
			}
			row = append(row, cmp.Or(o.Version, "-"), bytes, cmp.Or(strings.Join(o.Aliases, " "), "-"))
		}
		rows = append(rows, row)
	}
	return rows
}

// online asks the catalogues, and warns of those that do not answer.
func (a *app) online(ctx context.Context, refresh bool) ([]images.Listing, error) {
	catalogues, err := a.allCatalogues()
	if err != nil {
		return nil, err
	}
	a.status.setSoon("asking the catalogues of images")
	defer a.status.clear()
	o := &images.Online{CacheDir: a.paths.Cache, Catalogues: catalogues, Log: a.log}
	listings := o.List(ctx, refresh)
	if ctx.Err() != nil {
		return listings, nil
	}
	for _, l := range listings {
		switch {
		case l.Err == nil:
		case l.Asked.IsZero():
			a.note("warning", fmt.Sprintf("what %s offers is not known: %v", l.Host(), l.Err))
		default:
			a.note("warning", fmt.Sprintf("what %s offers was asked %s: %v", l.Host(), ago(l.Asked), l.Err))
		}
	}
	return listings, nil
}

// allCatalogues are those of the profile, which come first, and the built-in ones.
func (a *app) allCatalogues() ([]images.Catalogue, error) {
	p, err := a.machine.LoadProfile()
	if err != nil {
		return nil, err
	}
	var all []images.Catalogue
	for _, c := range p.Catalogues {
		switch c.Kind {
		case "wsl":
			all = append(all, &images.WSLCatalogue{URL: c.URL, Log: a.log})
		case "simplestreams":
			all = append(all, &images.Simplestreams{URL: c.URL, Log: a.log})
		default:
			all = append(all, images.CatalogueAt(c.URL, a.log))
		}
	}
	for _, c := range a.catalogues(a.log) {
		if !slices.ContainsFunc(all, func(o images.Catalogue) bool { return o.Address() == c.Address() }) {
			all = append(all, c)
		}
	}
	return all, nil
}

// makes tells whether lsub makes the image of that name itself.
func (a *app) makes(name string) bool {
	ref, err := images.ParseRef(name)
	return err == nil && ref.Source == "debian" && a.bootstraps()
}

// imageNamed returns the image that a name means: one that lsub makes itself,
// one of a registry, or one of a catalogue.
func (a *app) imageNamed(ctx context.Context, name string) (images.Ref, error) {
	ref, err := images.ParseRef(name)
	switch {
	case err == nil && (ref.Source != "debian" || a.bootstraps() || strings.Contains(ref.Version, "?")): // nobody else has what lsub is to make
		return ref, nil
	case err == nil: // a suite that this host cannot make
		if short := images.ShortName(name); short != "debian" {
			name = "debian-" + ref.Version
		}
	case !images.IsShortName(name):
		return images.Ref{}, err
	}
	listings, broken := a.online(ctx, false)
	if broken != nil {
		return images.Ref{}, broken
	}
	if err := context.Cause(ctx); err != nil {
		return images.Ref{}, interrupted(ctx, err)
	}
	o, unknown := images.Resolve(images.Offers(listings), name, "")
	if unknown != nil {
		switch {
		case err == nil && runtime.GOOS == "linux":
			return ref, nil // it may have been made before, or its source says what is missing
		case err != nil && strings.HasPrefix(strings.ToLower(name), "debian:"):
			return images.Ref{}, err // which suites there are, is known better
		}
		return images.Ref{}, a.adviseName(unknown, listings)
	}
	ref, err = o.Ref()
	if err != nil {
		return images.Ref{}, err
	}
	ref.Distro = strings.NewReplacer(":", "-", "/", "-", "+", "-").Replace(strings.ToLower(name))
	if machine.CheckName("distro", ref.Distro) != nil {
		ref.Distro = ""
	}
	return ref, nil
}

// adviseName adds a hint to the error for a name that no catalogue has.
func (a *app) adviseName(err error, listings []images.Listing) error {
	var unknown *images.UnknownError
	if !errors.As(err, &unknown) {
		return err
	}
	names := []string{"debian"}
	if a.bootstraps() {
		names = append(names, images.Names()...)
	}
	for _, o := range images.Offers(listings) {
		if o.Arch == runtime.GOARCH {
			for _, n := range append([]string{o.Name}, o.Aliases...) {
				names = append(names, n, images.ShortName(n))
			}
		}
	}
	// Who wrote "alpine-3" does not mean "alpine".
	if near := nearest(unknown.Name, names); near != "" && !strings.HasPrefix(unknown.Name, near) {
		return hint.New(err, fmt.Sprintf("did you mean %q?", near))
	}
	for _, l := range listings {
		if l.Asked.IsZero() {
			return hint.New(fmt.Errorf("%w, and %s cannot be asked", err, l.Host()),
				"check the network; debian, container images (oci:REGISTRY/REPOSITORY:TAG) and files (--from-file) do not need it")
		}
	}
	if near := unknown.Near; len(near) > 0 {
		return hint.New(err, "there are "+strings.Join(near[:min(len(near), 8)], ", "))
	}
	return hint.New(err, "'lsub list --online' lists the images; there are also oci:REGISTRY/REPOSITORY:TAG, and --from-file")
}
