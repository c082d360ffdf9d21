package catalogue

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
)

// UnknownError says that no catalogue has an image of a name.
type UnknownError struct {
	Name string
	Near []string // offers whose names begin with Name
}

func (e *UnknownError) Error() string { return fmt.Sprintf("no image %q is known", e.Name) }

// Resolve returns the offer that a short name such as "alma", "ubuntu-24.04" or
// "alpine:3.22" means on an architecture ("" is the host's): the first one with
// that name, otherwise the first one with such an alias. The error is an
// *UnknownError, or says that the image is for other architectures only.
func Resolve(offers []Offer, name, arch string) (Offer, error) {
	if arch == "" {
		arch = runtime.GOARCH
	}
	want := ShortName(name)
	has := func(o Offer) bool { return ShortName(o.Name) == want }
	hasAlias := func(o Offer) bool {
		return slices.ContainsFunc(o.Aliases, func(a string) bool { return ShortName(a) == want })
	}
	var others []string
	for _, match := range []func(Offer) bool{has, hasAlias} {
		for _, o := range offers {
			switch {
			case !match(o):
			case o.Arch == arch:
				return o, nil
			case !slices.Contains(others, o.Arch):
				others = append(others, o.Arch)
			}
		}
	}
	if len(others) > 0 {
		return Offer{}, hint.New(fmt.Errorf("image %q is offered for %s, not for %s", name, strings.Join(others, ", "), arch),
			"'lsub list --online' lists what there is for this host")
	}
	unknown := &UnknownError{Name: name}
	for _, o := range offers {
		if o.Arch == arch && want != "" && strings.HasPrefix(ShortName(o.Name), want) {
			unknown.Near = append(unknown.Near, o.Name)
		}
	}
	return Offer{}, unknown
}

// IsShortName tells whether a catalogue may have the name, unlike "oci:…" and
// addresses.
func IsShortName(name string) bool {
	return !strings.HasPrefix(name, "oci:") && !strings.Contains(name, "//") && offerName(strings.ReplaceAll(strings.ToLower(name), ":", "-"))
}

// ShortName returns the form in which image names are compared: "Fedora:42",
// "fedora/42/default" and "fedoralinux-42" have the same.
func ShortName(name string) string {
	name = strings.NewReplacer(":", "-", "/", "-", "_", "-", " ", "-").Replace(strings.ToLower(name))
	name = strings.TrimSuffix(name, "-default")
	system, rest, _ := strings.Cut(name, "-")
	if s := strings.TrimSuffix(system, "linux"); s != "" {
		system = s
	}
	if rest = strings.TrimPrefix(rest+"-", "linux-"); rest == "-" || rest == "" {
		return system
	}
	return system + "-" + strings.TrimSuffix(rest, "-")
}
