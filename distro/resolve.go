package distro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
	"github.com/lsub/lsub/machine"
)

// Resolve returns the image that a name means: one that lsub makes itself ("debian"), one
// of a registry ("oci:…"), or one of a catalogue ("alpine:3.22"). Only the last asks
// servers, and remembers for an hour what they say. arch is the processor that the image is
// for, as GOARCH; "" is the VM's.
func (s *Service) Resolve(ctx context.Context, name, arch string) (images.Ref, error) {
	arch = cmp.Or(arch, s.cfg.Arch)
	ref, err := images.ParseRef(name)
	ref.Arch = arch
	switch {
	case err == nil && (ref.Source != "debian" || s.cfg.BuildsDebian() || strings.Contains(ref.Version, "?")): // nobody else has what lsub is to make
		return ref, nil
	case err == nil: // a suite that this host cannot make
		if short := catalogue.ShortName(name); short != "debian" {
			name = "debian-" + ref.Version
		}
	case !catalogue.IsShortName(name):
		return images.Ref{}, err
	}
	listings, broken := s.catalogues(ctx, false)
	if broken != nil {
		return images.Ref{}, broken
	}
	if err := context.Cause(ctx); err != nil {
		return images.Ref{}, interrupted(ctx, err, "interrupted; nothing was installed")
	}
	o, unknown := catalogue.Resolve(catalogue.Offers(listings), name, arch)
	if unknown != nil {
		switch {
		case err == nil && runtime.GOOS == "linux":
			return ref, nil // it may have been made before, or its source says what is missing
		case err != nil && strings.HasPrefix(strings.ToLower(name), "debian:"):
			return images.Ref{}, err // it lists the suites that there are
		}
		return images.Ref{}, s.adviseName(unknown, arch, listings)
	}
	ref, err = o.Ref()
	if err != nil {
		return images.Ref{}, err
	}
	ref.Arch = arch
	ref.Distro = strings.NewReplacer(":", "-", "/", "-", "+", "-").Replace(strings.ToLower(name))
	if machine.CheckName("distro", ref.Distro) != nil {
		ref.Distro = ""
	}
	return ref, nil
}

// LookupOptions say how an image is looked up.
type LookupOptions struct {
	Insecure bool // see [images.Ref.AllowInsecure]
}

// Lookup returns the distro that a name means: one of that name, or else the first one
// that was made of the image of that name. Where there is none yet, d is nil and image is
// what to install.
func (s *Service) Lookup(ctx context.Context, name string, o LookupOptions) (d *machine.Distro, image images.Ref, err error) {
	reg, err := s.machine.Registry()
	if err != nil {
		return nil, images.Ref{}, err
	}
	if d, err := reg.Find(name); err == nil {
		return d, images.Ref{}, nil
	}
	if catalogue.IsShortName(name) { // it may be known without asking
		if d := s.distroOf(reg, images.Ref{Label: name}); d != nil {
			return d, images.Ref{}, nil
		}
	}
	image, err = s.Resolve(ctx, name, "")
	if err != nil {
		if near := nearestDistro(reg, name); near != nil {
			return nil, images.Ref{}, near
		}
		return nil, images.Ref{}, err
	}
	if o.Insecure {
		if image, err = image.AllowInsecure(); err != nil {
			return nil, images.Ref{}, err
		}
	}
	return s.distroOf(reg, image), image, nil
}

// distroOf returns the first distro that was made of an image, or nil. An
// image of a catalogue may have been of another version then.
func (s *Service) distroOf(reg *machine.Registry, image images.Ref) *machine.Distro {
	want, _, _ := strings.Cut(image.Label, "@")
	arch := func(a string) string { return cmp.Or(a, s.cfg.Arch) }
	for i, d := range reg.Distros {
		if d.Ephemeral || arch(d.Arch) != arch(image.Arch) {
			continue
		}
		made, _, labelled := strings.Cut(d.ImageName, "@")
		if d.ImageName == image.String() || want != "" && labelled && catalogue.IsShortName(made) && catalogue.ShortName(made) == catalogue.ShortName(want) {
			return &reg.Distros[i]
		}
	}
	return nil
}

// nearestDistro is the error for a slip in a distro's name, or nil.
func nearestDistro(reg *machine.Registry, name string) error {
	var names []string
	for _, d := range reg.Distros {
		names = append(names, d.Name)
	}
	if hint.Nearest(name, names) == "" {
		return nil
	}
	_, err := reg.Find(name)
	return err
}

// adviseName adds a hint to the error for a name that no catalogue has.
func (s *Service) adviseName(err error, arch string, listings []catalogue.Listing) error {
	var unknown *catalogue.UnknownError
	if !errors.As(err, &unknown) {
		return err
	}
	names := []string{"debian"}
	if s.cfg.BuildsDebian() {
		names = append(names, images.Names()...)
	}
	for _, o := range catalogue.Offers(listings) {
		if o.Arch == arch {
			for _, n := range slices.Concat([]string{o.Name}, o.Aliases) {
				names = append(names, n, catalogue.ShortName(n))
			}
		}
	}
	// Who wrote "alpine-3" does not mean "alpine".
	if near := hint.Nearest(unknown.Name, names); near != "" && !strings.HasPrefix(unknown.Name, near) {
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
