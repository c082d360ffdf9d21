package images

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/mmdebstrap"
)

// debianOptions say how an image of a Debian suite differs from the usual one.
// They follow the suite as in "debian:trixie?include=git,curl&variant=standard".
type debianOptions struct {
	include []string // packages, sorted
	variant string   // "" is minbase
	stale   bool     // the mirror's lists may be past their date; their signatures are checked all the same
}

// debianVariants are what mmdebstrap can start from, the smallest first.
var debianVariants = []string{"minbase", "buildd", "important", "standard"}

const maxInclude = 500 // packages

// packageName is what Debian's policy lets a package be called, but for a "-" at
// the end, which apt takes for a package to remove.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*[a-z0-9+.]$`)

// parseDebianOptions reads what follows the "?" of an image's name.
func parseDebianOptions(text string) (o debianOptions, err error) {
	given := map[string]bool{}
	for option := range strings.SplitSeq(text, "&") {
		key, value, _ := strings.Cut(option, "=")
		if given[key] {
			return o, fmt.Errorf("option %q of the image is given twice", key)
		}
		given[key] = true
		switch key {
		case "include":
			o.include, err = parsePackages(value)
		case "variant":
			o.variant, err = parseVariant(value)
		case "check-valid-until":
			o.stale, err = parseValidUntil(value)
		default:
			return o, hint.New(fmt.Errorf("a Debian image has no option %q", key),
				"there are include, variant and check-valid-until, as in 'debian:trixie?include=git,curl&variant=standard'")
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

func parsePackages(list string) ([]string, error) {
	names := strings.Split(list, ",")
	if len(names) > maxInclude {
		return nil, fmt.Errorf("%d packages are more than an image can include by name, which is %d", len(names), maxInclude)
	}
	for _, name := range names {
		if !packageName.MatchString(name) {
			return nil, hint.New(fmt.Errorf("%.100q cannot be the name of a package", name), "name packages as in include=git,curl, without spaces")
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

func parseVariant(name string) (string, error) {
	switch {
	case name == debianVariants[0]:
		return "", nil
	case slices.Contains(debianVariants, name):
		return name, nil
	}
	return "", hint.New(fmt.Errorf("no variant %q of Debian is known", name), "known are "+strings.Join(debianVariants, ", "))
}

// parseValidUntil reads the option of that name in apt's sources.list.
func parseValidUntil(value string) (stale bool, err error) {
	switch value {
	case "yes":
		return false, nil
	case "no":
		return true, nil
	}
	return false, fmt.Errorf("check-valid-until is yes or no, not %q", value)
}

// String returns the options as they follow the suite: the same for all ways to
// write them.
func (o debianOptions) String() string {
	var text []string
	if len(o.include) > 0 {
		text = append(text, "include="+strings.Join(o.include, ","))
	}
	if o.variant != "" {
		text = append(text, "variant="+o.variant)
	}
	if o.stale {
		text = append(text, "check-valid-until=no")
	}
	if len(text) == 0 {
		return ""
	}
	return "?" + strings.Join(text, "&")
}

// parseDebian reads "debian", "debian:SUITE" and what may follow a "?".
func parseDebian(name string) (Ref, error) {
	name, text, hasOptions := strings.Cut(name, "?")
	_, version, tagged := strings.Cut(name, ":")
	if !tagged {
		version = DefaultSuite
	}
	suite := ""
	for _, s := range debianSuites {
		if version == s.name || version == s.number && version != "" {
			suite = s.name
		}
	}
	if suite == "" {
		return Ref{}, hint.New(fmt.Errorf("no Debian suite %q is known", version), "known are "+strings.Join(Names(), ", "))
	}
	ref := Ref{Source: "debian", Version: suite}
	if hasOptions {
		o, err := parseDebianOptions(text)
		if err != nil {
			return Ref{}, err
		}
		ref.Version += o.String()
	}
	return ref, nil
}

// debianSuite returns what the Version of a Ref means.
func debianSuite(version string) (suite string, o debianOptions, err error) {
	ref, err := parseDebian("debian:" + version)
	if err == nil && ref.Version != version {
		err = errors.New("it was not read by ParseRef")
	}
	if err != nil {
		return "", o, fmt.Errorf("Debian image %q: %w", version, err)
	}
	suite, text, hasOptions := strings.Cut(version, "?")
	if hasOptions {
		o, err = parseDebianOptions(text)
	}
	return suite, o, err
}

// recipe identifies how an image with these options is built: an image of
// another recipe is built anew.
func (o debianOptions) recipe() string {
	sum := sha256.Sum256([]byte(mmdebstrap.Recipe() + o.String()))
	return hex.EncodeToString(sum[:8])
}
