package account

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/lsub/lsub/guest/guestv1"
)

// Two distros of the same files have different keys, which fit their public
// halves; a file of a kind that there is no key of stays.
func TestNewIdentity(t *testing.T) {
	files := map[string]string{
		"etc/ssh/ssh_host_ed25519_key": "", "etc/ssh/ssh_host_ecdsa_key": "old", "etc/ssh/ssh_host_ecdsa_key.pub": "old",
		"etc/ssh/ssh_host_rsa_key": "", "etc/ssh/ssh_host_x_key": "kept",
		"etc/ssl/private/ssl-cert-snakeoil.key": "", "etc/ssl/certs/ssl-cert-snakeoil.pem": "old", "etc/ssl/certs/other.pem": "kept",
		"var/lib/dbus/machine-id": "old", "var/lib/systemd/random-seed": "old",
	}
	create := func() string {
		dir := newTree(t, files)
		for link, to := range map[string]string{"0123abcd.0": "ssl-cert-snakeoil.pem", "62742064.0": "other.pem"} {
			if err := os.Symlink(to, filepath.Join(dir, "etc/ssl/certs", link)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(filepath.Join(dir, "etc/ssl/private/ssl-cert-snakeoil.key"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := Prepare(dir, &guestv1.CreateDistroRequest{Distro: &guestv1.Distro{Name: "vm"}}); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	one, two := create(), create()
	read := func(dir, name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		return b
	}
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := "etc/ssh/ssh_host_" + kind + "_key"
		key, err := ssh.ParsePrivateKey(read(one, file))
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		public, comment, _, _, err := ssh.ParseAuthorizedKey(read(one, file+".pub"))
		if err != nil || !bytes.Equal(public.Marshal(), key.PublicKey().Marshal()) || comment != "root@vm" {
			t.Errorf("%s: the public key is %q, %v", kind, comment, err)
		}
		if bytes.Equal(read(one, file), read(two, file)) {
			t.Errorf("%s: two distros have the same key", kind)
		}
	}
	cert, err := tls.X509KeyPair(read(one, snakeoilCert), read(one, snakeoilKey))
	if err != nil {
		t.Fatal(err)
	}
	leaf := cert.Leaf
	if leaf.Subject.String() != "CN=vm" || leaf.VerifyHostname("vm") != nil || leaf.CheckSignature(x509.SHA256WithRSA, leaf.RawTBSCertificate, leaf.Signature) != nil ||
		time.Until(leaf.NotAfter) < 3600*24*time.Hour || time.Until(leaf.NotBefore) > 0 {
		t.Errorf("got a certificate of %s, from %v to %v", leaf.Subject, leaf.NotBefore, leaf.NotAfter)
	}
	if bytes.Equal(read(one, snakeoilKey), read(two, snakeoilKey)) {
		t.Error("two distros have the same key for their certificates")
	}
	if info, err := os.Stat(filepath.Join(one, snakeoilKey)); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the certificate's key has %v, %v", info.Mode(), err)
	}
	// OpenSSL's hash of "CN = vm" is 62742064.
	for link, want := range map[string]string{"0123abcd.0": "", "62742064.0": "other.pem", "62742064.1": "ssl-cert-snakeoil.pem"} {
		if to, _ := os.Readlink(filepath.Join(one, "etc/ssl/certs", link)); to != want {
			t.Errorf("%s leads to %q, want %q", link, to, want)
		}
	}
	id := read(one, "etc/machine-id")
	if !bytes.Equal(id, read(one, "var/lib/dbus/machine-id")) || bytes.Equal(id, read(two, "etc/machine-id")) {
		t.Errorf("machine ids: %s", id)
	}
	if string(read(one, "etc/ssh/ssh_host_x_key")) != "kept" || string(read(one, "etc/ssl/certs/other.pem")) != "kept" {
		t.Error("files that are no keys have changed")
	}
	if _, err := os.Stat(filepath.Join(one, "var/lib/systemd/random-seed")); err == nil {
		t.Error("the random seed is there still")
	}
}

// A distro that was imported as it was keeps its keys.
func TestKeepIdentity(t *testing.T) {
	const id = "0123456789abcdef0123456789abcdef\n"
	dir := newTree(t, map[string]string{"etc/machine-id": id, "etc/ssh/ssh_host_ed25519_key": "mine", snakeoilKey: "mine", snakeoilCert: "mine"})
	if err := Prepare(dir, &guestv1.CreateDistroRequest{Distro: &guestv1.Distro{Name: "vm"}, KeepIdentity: true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"etc/machine-id": id, "etc/ssh/ssh_host_ed25519_key": "mine", snakeoilKey: "mine", snakeoilCert: "mine"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != want {
			t.Errorf("%s: got %q, %v", name, b, err)
		}
	}
}

// A key that is a link elsewhere is left alone.
func TestIdentityStaysInside(t *testing.T) {
	dir := newTree(t, map[string]string{"etc/ssh/real": "mine"})
	for _, to := range []string{"real", "/etc/passwd"} {
		link := filepath.Join(dir, "etc/ssh/ssh_host_ed25519_key")
		os.Remove(link)
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
		if err := Prepare(dir, &guestv1.CreateDistroRequest{Distro: &guestv1.Distro{Name: "vm"}}); err != nil {
			t.Fatal(err)
		}
		if got, _ := os.Readlink(link); got != to {
			t.Errorf("the link leads to %q", got)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "etc/ssh/real")); string(b) != "mine" {
		t.Errorf("got %q", b)
	}
}
