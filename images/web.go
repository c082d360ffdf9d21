package images

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"github.com/lsub/lsub/hint"
)

// webClient asks web servers over https only. It must be closed.
type webClient struct {
	http.Client
	guard *guardedTransport
}

// newWebClient trusts the authorities in roots; nil means the host's.
func newWebClient(roots *x509.CertPool) *webClient {
	guard := newGuardedTransport("", false)
	guard.base.DisableCompression = true // what is served is what has the sum
	if roots != nil {
		guard.base.TLSClientConfig.RootCAs = roots
	}
	return &webClient{http.Client{Transport: guard, CheckRedirect: checkRedirect}, guard}
}

func (c *webClient) close() { c.guard.base.CloseIdleConnections() }

const maxRedirects = 10

// redirectError says that a server sent lsub where it will not go.
type redirectError struct{ reason string }

func (e *redirectError) Error() string { return "redirects " + e.reason }

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case r.URL.Scheme != "https":
		return &redirectError{fmt.Sprintf("to %.50s://%.200s, which is not https", r.URL.Scheme, r.URL.Host)}
	case len(via) >= maxRedirects:
		return &redirectError{"too often"}
	}
	return nil
}

// statusError is a server's answer that is not what was asked for.
type statusError struct{ code int }

func (e *statusError) Error() string {
	return fmt.Sprintf("answers with status %d (%s)", e.code, http.StatusText(e.code))
}

// lasting tells errors that another attempt would meet again.
func lasting(ctx context.Context, err error) bool {
	var status *statusError
	if errors.As(err, &status) {
		return status.code < 500 && status.code != http.StatusTooManyRequests && status.code != http.StatusRequestTimeout
	}
	return ctx.Err() != nil || badCertificate(err) || errors.As(err, new(*redirectError)) || errors.As(err, new(*insecureError)) ||
		!ofNetwork(err)
}

// explainWeb says in the user's words why a server did not give something.
func explainWeb(ctx context.Context, u *url.URL, err error) error {
	var status *statusError
	var redirect *redirectError
	var wrapped *url.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &redirect):
		return hint.New(fmt.Errorf("%s %w", u.Host, redirect), "look for an address that serves the file itself over https")
	case errors.As(err, &status) && (status.code == http.StatusNotFound || status.code == http.StatusGone):
		return hint.New(fmt.Errorf("%s does not have it", u.Host), "check the address")
	case errors.As(err, &status):
		return hint.New(fmt.Errorf("%s %w", u.Host, status), "check the address, or try again later")
	case badCertificate(err):
		return hint.New(fmt.Errorf("%s: %w", u.Host, err), "have the host trust the authority that signed the server's certificate")
	}
	if !errors.As(err, &wrapped) && lasting(ctx, err) {
		return err // of this host, such as a full disk
	}
	if wrapped != nil {
		err = wrapped.Err // the address is known
	}
	return hint.New(fmt.Errorf("%s cannot be reached: %w", u.Host, err), "check the network; what was downloaded is kept for the next time")
}
