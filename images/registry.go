package images

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/lsub/lsub/hint"
)

// registry is one repository of a registry, over https, or over plain http
// where it is on this host. It must be closed.
type registry struct {
	ref    name.Reference
	puller *remote.Puller
	http   *guardedTransport
}

var _ blobs = (*registry)(nil)

func openRegistry(ref name.Reference, backoff remote.Backoff) (*registry, error) {
	t := newGuardedTransport(isLoopback(ref.Context().RegistryStr()))
	opts := []remote.Option{
		remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithTransport(t), remote.WithUserAgent("lsub"),
	}
	if backoff != (remote.Backoff{}) {
		opts = append(opts, remote.WithRetryBackoff(backoff))
	}
	p, err := remote.NewPuller(opts...)
	return &registry{ref: ref, puller: p, http: t}, err
}

func (r *registry) close() { r.http.base.CloseIdleConnections() }

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
	if ctx.Err() != nil || errors.As(err, new(*insecureError)) || badCertificate(err) {
		return false
	}
	var answer *transport.Error
	if errors.As(err, &answer) {
		return answer.StatusCode >= 500 || answer.StatusCode == http.StatusTooManyRequests
	}
	return ofNetwork(err)
}

// ofNetwork tells the network's errors from those of the host's disk, whose
// error numbers look like the network's.
func ofNetwork(err error) bool {
	if errors.As(err, new(*fs.PathError)) || errors.As(err, new(*os.LinkError)) {
		return false
	}
	return errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func badCertificate(err error) bool {
	return errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) ||
		errors.As(err, new(x509.CertificateInvalidError))
}

// explain says in the user's words why a registry did not give something.
func (r *registry) explain(ctx context.Context, err error) error {
	host := r.ref.Context().RegistryStr()
	var answer *transport.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &answer):
	case badCertificate(err):
		return hint.New(fmt.Errorf("%s: %w", host, err), "have the host trust the authority that signed the registry's certificate")
	case unreachable(ctx, err):
		return hint.New(fmt.Errorf("%s cannot be reached: %w", host, err), "check the network and the registry's name")
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

// insecureError says that a request would have gone over plain http.
type insecureError struct{ host string }

func (e *insecureError) Error() string { return "will not speak plain http to " + e.host }

// guardedTransport sends requests over https only, also those that redirects
// lead to; over http where that is allowed and the address is on this host. An
// answer that stalls ends with an error.
type guardedTransport struct {
	base  *http.Transport
	plain bool // loopback may be plain
}

// stallTime is for how long a server may say nothing.
const stallTime = time.Minute

func newGuardedTransport(plain bool) *guardedTransport {
	base := http.DefaultTransport.(*http.Transport).Clone()
	base.ResponseHeaderTimeout = stallTime
	return &guardedTransport{base, plain}
}

func (t *guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !(t.plain && r.URL.Scheme == "http" && isLoopback(r.URL.Host)) {
		return nil, hint.New(&insecureError{r.URL.Host}, "only a registry on this host may do without https")
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	timer.Stop()
	r = r.WithContext(ctx)
	if r.Body != nil {
		r.Body = &sendBody{r.Body, func() { timer.Reset(stallTime) }, func() { timer.Stop() }}
	}
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		timer.Stop()
		if context.Cause(ctx) == errStalled {
			err = errStalled
		}
		cancel(nil)
		return nil, err
	}
	timer.Reset(stallTime)
	resp.Body = &stallBody{resp.Body, ctx, timer, cancel}
	return resp, nil
}

// stalled is the error of a server that stops in the middle. It is a
// [net.Error], as a timeout of the network is.
type stalled struct{}

var errStalled net.Error = stalled{}

func (stalled) Error() string   { return fmt.Sprintf("no data came for %v", stallTime) }
func (stalled) Timeout() bool   { return true }
func (stalled) Temporary() bool { return true }

// stallBody ends its request when no data comes for too long.
type stallBody struct {
	io.ReadCloser
	ctx    context.Context
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *stallBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(stallTime)
	}
	if err != nil && context.Cause(b.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (b *stallBody) Close() error {
	b.timer.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// isLoopback tells whether an address, with or without a port, is this host.
func isLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// maxDownload limits what is downloaded for one image.
const maxDownload = 64 << 30
