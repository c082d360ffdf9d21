package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/images/internal/web"
)

// registry is one repository of a registry, over https; also over plain http and
// with any certificate where it is on this host and the user allows that. It
// must be closed.
type registry struct {
	ref    name.Reference
	puller *remote.Puller
	http   *web.Transport
}

var _ blobs = (*registry)(nil)

func openRegistry(ref name.Reference, insecure bool, backoff remote.Backoff) (*registry, error) {
	t := web.NewTransport(ref.Context().RegistryStr(), insecure)
	opts := []remote.Option{
		remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(t), remote.WithUserAgent("lsub"),
	}
	if backoff != (remote.Backoff{}) {
		opts = append(opts, remote.WithRetryBackoff(backoff))
	}
	p, err := remote.NewPuller(opts...)
	return &registry{ref: ref, puller: p, http: t}, err
}

func (r *registry) close() { r.http.Close() }

// top returns the manifest or index that the reference means now.
func (r *registry) top(ctx context.Context) (v1.Descriptor, []byte, error) {
	d, err := r.puller.Get(ctx, r.ref)
	if err != nil {
		return v1.Descriptor{}, nil, err
	}
	if len(d.Manifest) > maxManifest {
		return v1.Descriptor{}, nil, fmt.Errorf("manifest has more than %d bytes", maxManifest)
	}
	sum := newDigester()
	sum.Write(d.Manifest)
	want := d.Descriptor
	if ref, ok := r.ref.(name.Digest); ok {
		if want.Digest, err = v1.NewHash(ref.DigestStr()); err != nil {
			return v1.Descriptor{}, nil, err
		}
	}
	return want, d.Manifest, wrongDigest(sum, want)
}

func (r *registry) manifest(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	got, err := r.puller.Get(ctx, r.ref.Context().Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(got.Manifest)), nil
}

func (r *registry) blob(ctx context.Context, d v1.Descriptor) (io.ReadCloser, error) {
	l, err := r.puller.Layer(ctx, r.ref.Context().Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

// unreachable tells errors of the way to a registry, and of a registry that
// serves nobody now, from its answers.
func unreachable(ctx context.Context, err error) bool {
	if ctx.Err() != nil || errors.As(err, new(*web.InsecureError)) || web.IsBadCertificate(err) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests
	}
	return web.IsNetworkError(err)
}

// explain says in the user's words why a registry did not give something.
func (r *registry) explain(ctx context.Context, err error) error {
	host := r.ref.Context().RegistryStr()
	var answer *transport.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &answer):
	case web.IsBadCertificate(err):
		advice := "have the host trust the authority that signed the registry's certificate"
		if web.IsLoopback(host) {
			advice += "; --insecure does without that for a registry on this host"
		}
		return hint.New(fmt.Errorf("%s: %w", host, web.WithoutFallback(err)), advice)
	case errors.Is(err, http.ErrSchemeMismatch):
		advice := "have it serve https; only to a registry on this host, --insecure allows plain http"
		if web.IsLoopback(host) {
			advice = "--insecure allows that for a registry on this host"
		}
		return hint.New(fmt.Errorf("%s speaks plain http, not https", host), advice)
	case unreachable(ctx, err):
		return hint.New(fmt.Errorf("%s cannot be reached: %w", host, web.WithoutFallback(err)), "check the network and the registry's name")
	default:
		return err
	}
	login := "log in with 'docker login " + host + "' or 'podman login " + host + "'"
	switch code := answer.StatusCode; {
	case code == http.StatusNotFound:
		return hint.New(fmt.Errorf("%s has no such image", host), "check the repository and the tag: "+r.ref.Name())
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		return hint.New(fmt.Errorf("%s does not let you have it", host),
			"check the name: many registries say so of what they do not have; if it is private, "+login)
	case code == http.StatusTooManyRequests:
		return hint.New(fmt.Errorf("%s has had too many requests from here", host), "wait some minutes, or "+login)
	case code >= 500:
		return hint.New(fmt.Errorf("%s is out of order: status %d", host, code), "try again later")
	}
	return fmt.Errorf("%s answers: %w", host, err)
}

// maxDownload limits what is downloaded for one image.
const maxDownload = 64 << 30
