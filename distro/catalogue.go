package distro

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
)

// Online is what can be installed by name. Its JSON is what 'lsub list --online --json'
// prints.
type Online struct {
	Images     []OnlineImage     `json:"images"`
	Catalogues []OnlineCatalogue `json:"catalogues"`
}

// OnlineImage is an image for this host's architecture.
type OnlineImage struct {
	catalogue.Offer
	From string `json:"from"` // a catalogue's address, "" for what lsub makes itself
}

// OnlineCatalogue is a server that was asked, or its answer of before.
type OnlineCatalogue struct {
	Address string     `json:"address"`
	Host    string     `json:"-"`               // short enough for a table
	Asked   *time.Time `json:"asked,omitempty"` // when it offered this; nil: never
	Cached  bool       `json:"cached"`
	Error   string     `json:"error,omitempty"` // why it could not be asked
}

// OnlineOptions say how the catalogues are listed.
type OnlineOptions struct {
	Refresh bool // ask also those that were asked in the last hour
}

// Online lists what can be installed by name. A catalogue that cannot be asked is a
// warning, and what it offered before is listed.
func (s *Service) Online(ctx context.Context, o OnlineOptions) (*Online, error) {
	listings, err := s.catalogues(ctx, o.Refresh)
	if err != nil {
		return nil, err
	}
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	all := &Online{Images: []OnlineImage{}, Catalogues: []OnlineCatalogue{}} // JSON has [] for none
	if s.cfg.BuildsDebian() {
		for _, name := range images.Names() {
			all.Images = append(all.Images, OnlineImage{Offer: catalogue.Offer{Name: name, Arch: s.cfg.Arch, Title: "Debian, made by lsub"}})
		}
	}
	for _, l := range listings {
		about := OnlineCatalogue{Address: l.Address, Host: l.Host(), Cached: l.Cached}
		if l.Err != nil {
			about.Error = l.Err.Error()
		}
		if !l.Asked.IsZero() {
			about.Asked = &l.Asked
		}
		all.Catalogues = append(all.Catalogues, about)
		for _, o := range l.Offers {
			if o.Arch == s.cfg.Arch && !s.makes(o.Name) {
				all.Images = append(all.Images, OnlineImage{o, l.Address})
			}
		}
	}
	return all, nil
}

// catalogues asks the catalogues, and warns of those that do not answer.
func (s *Service) catalogues(ctx context.Context, refresh bool) ([]catalogue.Listing, error) {
	catalogues, err := s.allCatalogues()
	if err != nil {
		return nil, err
	}
	s.events.Progress(Step{Text: "asking the catalogues of images", Brief: true})
	defer s.done()
	o := &catalogue.Online{CacheDir: s.cfg.Paths.Cache, Catalogues: catalogues, Log: s.log}
	listings := o.List(ctx, refresh)
	if ctx.Err() != nil {
		return listings, nil
	}
	for _, l := range listings {
		switch {
		case l.Err == nil:
		case l.Asked.IsZero():
			s.events.Warn(fmt.Sprintf("what %s offers is not known: %v", l.Host(), l.Err))
		default:
			s.events.Warn(fmt.Sprintf("what %s offers was asked %s: %v", l.Host(), Ago(l.Asked), l.Err))
		}
	}
	return listings, nil
}

// allCatalogues are those of the profile, which come first, and the built-in ones.
func (s *Service) allCatalogues() ([]catalogue.Catalogue, error) {
	p, err := s.machine.LoadProfile()
	if err != nil {
		return nil, err
	}
	var all []catalogue.Catalogue
	for _, c := range p.Catalogues {
		switch c.Kind {
		case "wsl":
			all = append(all, &catalogue.WSL{URL: c.URL, Log: s.log})
		case "simplestreams":
			all = append(all, &catalogue.Simplestreams{URL: c.URL, Log: s.log})
		default:
			all = append(all, catalogue.At(c.URL, s.log))
		}
	}
	for _, c := range s.cfg.Catalogues() {
		if !slices.ContainsFunc(all, func(o catalogue.Catalogue) bool { return o.Address() == c.Address() }) {
			all = append(all, c)
		}
	}
	return all, nil
}

// makes tells whether lsub makes the image of that name itself.
func (s *Service) makes(name string) bool {
	ref, err := images.ParseRef(name)
	return err == nil && ref.Source == "debian" && s.cfg.BuildsDebian()
}

// Ago says how long ago a moment was.
func Ago(t time.Time) string {
	switch d := time.Since(t); {
	case d < time.Minute:
		return "just now"
	case d < time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return t.Local().Format(time.DateOnly)
}
