package images

import (
	"errors"
	"fmt"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/web"
)

// AllowInsecure returns the name of the same image in a registry that may speak
// plain http, or have a certificate that nobody vouches for. That is for
// registries on this host alone: the error says so of others, also of those
// whose names merely lead here, since they may lead elsewhere the next time.
func (r Ref) AllowInsecure() (Ref, error) {
	if r.Source != "oci" {
		return Ref{}, hint.New(errors.New("--insecure is for a container image in a registry"), "leave it out, or name oci:REGISTRY/REPOSITORY:TAG")
	}
	ref, err := name.ParseReference(r.Version)
	if err != nil {
		return Ref{}, err
	}
	if host := ref.Context().RegistryStr(); !web.IsLoopback(host) {
		return Ref{}, hint.New(fmt.Errorf("--insecure is for a registry on this host, and %s is none", host),
			"leave it out, and have the host trust the authority that signed the registry's certificate; this host is localhost, 127.0.0.1 or [::1]")
	}
	r.Insecure = true
	return r, nil
}

// parse reads the name of a container image.
func (r Ref) parse() (name.Reference, error) {
	if r.Insecure {
		return name.ParseReference(r.Version, name.Insecure) // asked over https first, all the same
	}
	return name.ParseReference(r.Version)
}
