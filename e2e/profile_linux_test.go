package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCompanyNetwork tests a company's network: a proxy that is the only way out, here on the
// host's loopback, and a private authority.
func TestCompanyNetwork(t *testing.T) {
	h := freshWith(t, toolsImage)
	// Each authority costs a second of software emulation whenever the list is rebuilt. An
	// empty list is another test case.
	h.sh(t, "debian", `sed -i '4,$s/^mozilla/!mozilla/' /etc/ca-certificates.conf`)
	ca, secure := companyServer(t)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the proxy got %s", r.URL)
	}))
	defer proxy.Close()
	file := filepath.Join(h.dir, "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	profile := filepath.Join(h.dir, "home", "profiles", "default", "profile.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(profile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	get := func(args ...string) result {
		return h.run(append([]string{"exec", "debian", "--", "curl", "-sS", "-m", "60"}, args...)...)
	}

	t.Run("certificates", func(t *testing.T) {
		if r := get(secure); r.code == 0 || !strings.Contains(r.err, "certificate") {
			t.Errorf("without the authority: %s", r)
		}
		write("network: {ca_bundle: " + file + "}\n")
		h.ok(t, "stop", "debian")
		if r := get(secure); r.out != "secret" {
			t.Errorf("with the authority: %s", r)
		}
		before := h.sh(t, "debian", "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt; ls /usr/local/share/ca-certificates")
		if !strings.HasSuffix(before, "lsub-001.crt") {
			t.Errorf("the distro has %s", before)
		}
		write("")
		h.ok(t, "start", "debian") // a running distro drops it
		if r := get(secure); r.code == 0 {
			t.Errorf("the authority is still trusted: %s", r)
		}
	})
	t.Run("proxy", func(t *testing.T) {
		h.env = append(h.env, "http_proxy="+proxy.URL, "NO_PROXY=")
		if r := get("http://far.away.example/x"); r.out != "the proxy got http://far.away.example/x" {
			t.Error(r)
		}
		// Requests to the host bypass the proxy.
		if r := get(strings.Replace(proxy.URL, "127.0.0.1", "host.lsub.internal", 1) + "/y"); r.out != "the proxy got /y" {
			t.Error(r)
		}
		// A service has the values from the start of its distro.
		h.ok(t, "stop", "debian")
		if out := h.sh(t, "debian", "systemd-run -q --wait --pipe curl -sS -m 60 http://far.away.example/z"); out != "the proxy got http://far.away.example/z" {
			t.Errorf("a service: %s", out)
		}
		write("network: {proxy: off}\n")
		if r := get("http://far.away.invalid/x"); r.code == 0 || strings.Contains(r.out, "the proxy") {
			t.Error(r)
		}
	})
}

// companyServer starts a web server on the host's loopback. Its certificate is from an
// unknown authority.
func companyServer(t *testing.T) (ca []byte, url string) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err)
	// Guests that boot under emulation may have a late clock.
	from, to := time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "The company"}, NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, authority, authority, &key.PublicKey, key)
	check(err)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "web"}, NotBefore: from, NotAfter: to, DNSNames: []string{"host.lsub.internal"},
	}
	own, err := x509.CreateCertificate(rand.Reader, leaf, authority, &key.PublicKey, key)
	check(err)
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secret") }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{own}, PrivateKey: key}}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	check(err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), "https://host.lsub.internal:" + port
}
