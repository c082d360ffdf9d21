package web

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/lsub/lsub/hint"
)

// Transport sends requests over https only, redirects included. If allowed, it also uses http
// and accepts any certificate, but only for addresses on this host. An answer that stalls
// ends with an error.
type Transport struct {
	base     *http.Transport
	loose    *http.Transport // to this host only, with any certificate; nil: not allowed
	registry string
}

// stallTime is how long a server may send nothing.
const stallTime = time.Minute

func NewTransport(registry string, insecure bool) *Transport {
	t := &Transport{base: http.DefaultTransport.(*http.Transport).Clone(), registry: registry}
	t.base.ResponseHeaderTimeout = stallTime
	if insecure {
		t.loose = t.base.Clone()
		t.loose.Proxy = nil
		t.loose.DialContext = (&net.Dialer{Timeout: 30 * time.Second, ControlContext: onlyLoopback}).DialContext
		t.loose.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // the user asked for it; only programs on this host can answer
	}
	return t
}

func (t *Transport) Close() {
	t.base.CloseIdleConnections()
	if t.loose != nil {
		t.loose.CloseIdleConnections()
	}
}

// onlyLoopback refuses connections to other hosts. It checks the resolved address: the host's
// files may map "localhost" to any.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	if !IsLoopback(address) {
		return hint.New(fmt.Errorf("%s is not on this host", address), "--insecure is for a registry on this host: check what 'localhost' means there")
	}
	return nil
}

// choose returns the transport for a request.
func (t *Transport) choose(r *http.Request) (*http.Transport, error) {
	here := t.loose != nil && IsLoopback(r.URL.Host)
	switch {
	case here && (r.URL.Scheme == "https" || r.URL.Scheme == "http"):
		return t.loose, nil
	case r.URL.Scheme == "https":
		return t.base, nil
	case r.Response == nil && r.URL.Host == t.registry && r.URL.Path == "/v2/": // no redirect
		return nil, new(fallbackError)
	}
	return nil, hint.New(&InsecureError{r.URL.Host}, "only a registry on this host may do without https, with --insecure")
}

func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
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

// stalled is the error for a server that stops in the middle. It is a [net.Error], like a
// network timeout.
type stalled struct{}

var errStalled net.Error = stalled{}

func (stalled) Error() string   { return fmt.Sprintf("no data came for %v", stallTime) }
func (stalled) Timeout() bool   { return true }
func (stalled) Temporary() bool { return true }

// stallBody ends its request if no data arrives for too long.
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

// sendBody ends its request if the body makes no progress for too long.
type sendBody struct {
	io.ReadCloser
	alive func()
	done  func()
}

func (b *sendBody) Read(p []byte) (int, error) {
	b.alive()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done() // after this, the wait for the answer has its own timeout
	}
	return n, err
}

func (b *sendBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// IsLoopback reports whether an address, with or without a port, is this host.
func IsLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
