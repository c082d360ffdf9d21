package images

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/lsub/lsub/hint"
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
	if host := ref.Context().RegistryStr(); !isLoopback(host) {
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

// insecureError says that a request would have gone over plain http.
type insecureError struct{ host string }

func (e *insecureError) Error() string { return "will not speak plain http to " + e.host }

// fallbackError is the answer to go-containerregistry's second question, which
// it asks over plain http where a registry's name looks local. It says nothing
// of the registry: the first question's error, which comes with it, does.
type fallbackError struct{}

func (*fallbackError) Error() string { return "plain http was not tried" }

// ofHTTPS returns the error of the first question where there were two.
func ofHTTPS(err error) error {
	var first *url.Error
	if errors.As(err, new(*fallbackError)) && errors.As(err, &first) {
		return first
	}
	return err
}

// guardedTransport sends requests over https only, also those that redirects
// lead to; over http and to whoever answers where that is allowed and the
// address is on this host. An answer that stalls ends with an error.
type guardedTransport struct {
	base     *http.Transport
	loose    *http.Transport // to this host alone, with any certificate; nil: not allowed
	registry string
}

// stallTime is for how long a server may say nothing.
const stallTime = time.Minute

func newGuardedTransport(registry string, insecure bool) *guardedTransport {
	t := &guardedTransport{base: http.DefaultTransport.(*http.Transport).Clone(), registry: registry}
	t.base.ResponseHeaderTimeout = stallTime
	if insecure {
		t.loose = t.base.Clone()
		t.loose.Proxy = nil
		t.loose.DialContext = (&net.Dialer{Timeout: 30 * time.Second, ControlContext: onlyLoopback}).DialContext
		t.loose.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // what the user asked for; nobody but this host's programs can answer
	}
	return t
}

func (t *guardedTransport) close() {
	t.base.CloseIdleConnections()
	if t.loose != nil {
		t.loose.CloseIdleConnections()
	}
}

// onlyLoopback refuses connections that leave this host, after its name was
// looked up: "localhost" is what the host's files make of it.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	if !isLoopback(address) {
		return hint.New(fmt.Errorf("%s is not on this host", address), "--insecure is for a registry on this host: check what 'localhost' means there")
	}
	return nil
}

// choose returns what sends a request.
func (t *guardedTransport) choose(r *http.Request) (*http.Transport, error) {
	here := t.loose != nil && isLoopback(r.URL.Host)
	switch {
	case here && (r.URL.Scheme == "https" || r.URL.Scheme == "http"):
		return t.loose, nil
	case r.URL.Scheme == "https":
		return t.base, nil
	case r.Response == nil && r.URL.Host == t.registry && r.URL.Path == "/v2/": // no redirect
		return nil, new(fallbackError)
	}
	return nil, hint.New(&insecureError{r.URL.Host}, "only a registry on this host may do without https, with --insecure")
}

func (t *guardedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	base, err := t.choose(r)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	timer := time.AfterFunc(stallTime, func() { cancel(errStalled) })
	timer.Stop()
	r = r.WithContext(ctx)
	if r.Body != nil {
		r.Body = &sendBody{r.Body, func() { timer.Reset(stallTime) }, func() { timer.Stop() }}
	}
	resp, err := base.RoundTrip(r)
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
