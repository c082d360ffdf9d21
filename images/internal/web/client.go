package web

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Client sends requests over https only. It must be closed.
type Client struct {
	http.Client
	guard *Transport
}

// NewClient trusts the authorities in roots; nil means the host's.
func NewClient(roots *x509.CertPool) *Client {
	guard := NewTransport("", false)
	guard.base.DisableCompression = true // checksums apply to the bytes as served
	if roots != nil {
		guard.base.TLSClientConfig.RootCAs = roots
	}
	return &Client{http.Client{Transport: guard, CheckRedirect: checkRedirect}, guard}
}

// Close closes idle connections.
func (c *Client) Close() { c.guard.base.CloseIdleConnections() }

// Get reads the document at u, which may have up to most bytes.
func (c *Client) Get(ctx context.Context, u *url.URL, most int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "lsub")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, &StatusError{resp.StatusCode}
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%s has more than %d bytes", u, most)
	}
	return data, err
}

const maxRedirects = 10

func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case r.URL.Scheme != "https":
		return &RedirectError{fmt.Sprintf("to %.50s://%.200s, which is not https", r.URL.Scheme, r.URL.Host)}
	case len(via) >= maxRedirects:
		return &RedirectError{"too often"}
	}
	return nil
}
