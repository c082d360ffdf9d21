package images_test

import (
	"context"
	"crypto/x509"

	"github.com/lsub/lsub/images"
	"github.com/lsub/lsub/images/catalogue"
)

func init() {
	images.OfferOf = func(ctx context.Context, address string, roots *x509.CertPool, name, arch string) (images.Ref, error) {
		c := catalogue.At(address, nil)
		switch c := c.(type) {
		case *catalogue.WSL:
			c.Roots = roots
		case *catalogue.Simplestreams:
			c.Roots = roots
		}
		offers, err := c.List(ctx)
		if err != nil {
			return images.Ref{}, err
		}
		o, err := catalogue.Resolve(offers, name, arch)
		if err != nil {
			return images.Ref{}, err
		}
		return o.Ref()
	}
}
