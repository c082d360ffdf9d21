package web

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/lsub/lsub/hint"
)

// InsecureError says that a request would have gone over plain http.
type InsecureError struct{ host string }

func (e *InsecureError) Error() string { return "will not speak plain http to " + e.host }

// fallbackError is the answer to go-containerregistry's second request, which uses plain http
// if a registry's name looks local. It says nothing about the registry: the first request's
// error, which comes with it, does.
type fallbackError struct{}

func (*fallbackError) Error() string { return "plain http was not tried" }

// WithoutFallback returns the first request's error if there were two.
func WithoutFallback(err error) error {
	var first *url.Error
	if errors.As(err, new(*fallbackError)) && errors.As(err, &first) {
		return first
	}
	return err
}

// RedirectError says that a server redirects to a forbidden address.
type RedirectError struct{ Reason string }

func (e *RedirectError) Error() string { return "redirects " + e.Reason }

// StatusError is an answer with an unexpected status code.
type StatusError struct{ Code int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("answers with status %d (%s)", e.Code, http.StatusText(e.Code))
}

// Lasting reports whether a retry would fail with the same error.
func Lasting(ctx context.Context, err error) bool {
	var status *StatusError
	if errors.As(err, &status) {
		return status.Code < 500 && status.Code != http.StatusTooManyRequests && status.Code != http.StatusRequestTimeout
	}
	return ctx.Err() != nil || IsBadCertificate(err) || errors.As(err, new(*RedirectError)) || errors.As(err, new(*InsecureError)) ||
		!IsNetworkError(err)
}

// Explain says in the user's words why a download failed.
func Explain(ctx context.Context, u *url.URL, err error) error {
	var status *StatusError
	var redirect *RedirectError
	var wrapped *url.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &redirect):
		return hint.New(fmt.Errorf("%s %w", u.Host, redirect), "look for an address that serves the file itself over https")
	case errors.As(err, &status) && (status.Code == http.StatusNotFound || status.Code == http.StatusGone):
		return hint.New(fmt.Errorf("%s does not have it", u.Host), "check the address")
	case errors.As(err, &status):
		return hint.New(fmt.Errorf("%s %w", u.Host, status), "check the address, or try again later")
	case IsBadCertificate(err):
		return hint.New(fmt.Errorf("%s: %w", u.Host, err), "have the host trust the authority that signed the server's certificate")
	}
	if !errors.As(err, &wrapped) && Lasting(ctx, err) {
		return err // an error of this host, such as a full disk
	}
	if wrapped != nil {
		err = wrapped.Err // the address is known
	}
	return hint.New(fmt.Errorf("%s cannot be reached: %w", u.Host, err), "check the network; what was downloaded is kept for the next time")
}

// IsNetworkError distinguishes network errors from errors of the host's disk, whose error
// numbers look like those of the network.
func IsNetworkError(err error) bool {
	if errors.As(err, new(*fs.PathError)) || errors.As(err, new(*os.LinkError)) {
		return false
	}
	return errors.As(err, new(net.Error)) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// IsBadCertificate reports whether a server's certificate was refused.
func IsBadCertificate(err error) bool {
	return errors.As(err, new(x509.UnknownAuthorityError)) || errors.As(err, new(x509.HostnameError)) ||
		errors.As(err, new(x509.CertificateInvalidError))
}
