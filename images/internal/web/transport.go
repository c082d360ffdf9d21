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

// Transport sends requests over https only, also those that redirects
// lead to; over http and to whoever answers where that is allowed and the
// address is on this host. An answer that stalls ends with an error.
type Transport struct {
	base     *http.Transport
	loose    *http.Transport // to this host alone, with any certificate; nil: not allowed
	registry string
}

// stallTime is for how long a server may say nothing.
const stallTime = time.Minute

func NewTransport(registry string, insecure bool) *Transport {
	t := &Transport{base: http.DefaultTransport.(*http.Transport).Clone(), registry: registry}
	t.base.ResponseHeaderTimeout = stallTime
	if insecure {
		t.loose = t.base.Clone()
		t.loose.Proxy = nil
		t.loose.DialContext = (&net.Dialer{Timeout: 30 * time.Second, ControlContext: onlyLoopback}).DialContext
		t.loose.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} // what the user asked for; nobody but this host's programs can answer
	}
	return t
}

func (t *Transport) Close() {
	t.base.CloseIdleConnections()
	if t.loose != nil {
		t.loose.CloseIdleConnections()
	}
}

// onlyLoopback refuses connections that leave this host, after its name was
// looked up: "localhost" is what the host's files make of it.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	if !IsLoopback(address) {
		return hint.New(fmt.Errorf("%s is not on this host", address), "--insecure is for a registry on this host: check what 'localhost' means there")
	}
	return nil
}

// choose returns what sends a request.
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

// sendBody ends a request whose body nobody takes for too long.
type sendBody struct {
	io.ReadCloser
	alive func()
	done  func()
}

func (b *sendBody) Read(p []byte) (int, error) {
	b.alive()
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.done() // from here on, the wait for the answer has a limit of its own
	}
	return n, err
}

func (b *sendBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}

// IsLoopback tells whether an address, with or without a port, is this host.
func IsLoopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
