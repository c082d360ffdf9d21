package account

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// newIdentity replaces what tells one machine from another, and what only one
// machine may have: machine id, ssh host keys and the self-signed certificate of
// Debian's ssl-cert. Keys are made where the files have some, or have an empty
// file in their place, as lsub's own images do. name is the distro's.
func newIdentity(root *os.Root, name string) error {
	var id [16]byte
	rand.Read(id[:])
	text := hex.EncodeToString(id[:]) + "\n"
	if err := distrofile.Create(root, "etc/machine-id", text, 0o444); err != nil {
		return err
	}
	const dbusID = "var/lib/dbus/machine-id" // usually a link to the other
	if regularFile(root, dbusID) {
		if err := distrofile.Overwrite(root, dbusID, []byte(text)); err != nil {
			return err
		}
	}
	if err := root.Remove("var/lib/systemd/random-seed"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := newHostKeys(root, name); err != nil {
		return fmt.Errorf("ssh host keys: %w", err)
	}
	if err := newSnakeoil(root, name); err != nil {
		return fmt.Errorf("certificate of ssl-cert: %w", err)
	}
	return nil
}

// regularFile tells whether name is a regular file, and no link to one.
func regularFile(root *os.Root, name string) bool {
	info, err := root.Lstat(name)
	return err == nil && info.Mode().IsRegular()
}

// hostKeys make the private keys of sshd, by the type that is in a file's name.
var hostKeys = map[string]func() (crypto.Signer, error){
	"ed25519": func() (crypto.Signer, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	},
	"ecdsa": func() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) },
	"rsa":   func() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, 3072) },
}

// newHostKeys replaces each of sshd's keys by one of the same type.
func newHostKeys(root *os.Root, name string) error {
	for kind, generate := range hostKeys {
		file := "etc/ssh/ssh_host_" + kind + "_key"
		if !regularFile(root, file) {
			continue
		}
		key, err := generate()
		if err != nil {
			return err
		}
		comment := "root@" + name
		private, err := ssh.MarshalPrivateKey(key, comment)
		if err != nil {
			return err
		}
		public, err := ssh.NewPublicKey(key.Public())
		if err != nil {
			return err
		}
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))) + " " + comment + "\n"
		if err := distrofile.Overwrite(root, file, pem.EncodeToMemory(private)); err != nil {
			return err
		}
		if err := distrofile.Create(root, file+".pub", line, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const (
	snakeoilKey  = "etc/ssl/private/ssl-cert-snakeoil.key"
	snakeoilCert = "etc/ssl/certs/ssl-cert-snakeoil.pem"
	snakeoilLife = 3650 * 24 * time.Hour
)

// newSnakeoil does what "make-ssl-cert generate-default-snakeoil" does, where
// that was done before: a key, a certificate of the distro's name, and the link
// by which OpenSSL finds it. The key's file keeps its mode and owner.
func newSnakeoil(root *os.Root, name string) error {
	if !regularFile(root, snakeoilKey) || !regularFile(root, snakeoilCert) {
		return nil
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048) // ssl-cert replaces keys of other types
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 159))
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(snakeoilLife), // a clock may be set back a little
		BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	hash, err := subjectHash(name)
	if err != nil {
		return err
	}
	if err := distrofile.Overwrite(root, snakeoilKey, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})); err != nil {
		return err
	}
	if err := distrofile.Overwrite(root, snakeoilCert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})); err != nil {
		return err
	}
	return linkSnakeoil(root, hash)
}

// linkSnakeoil replaces the links to the certificate before by one to this one.
func linkSnakeoil(root *os.Root, hash string) error {
	dir, file := path.Split(snakeoilCert)
	entries, err := fs.ReadDir(root.FS(), path.Clean(dir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type() != fs.ModeSymlink {
			continue
		}
		if to, err := root.Readlink(dir + e.Name()); err == nil && to == file {
			if err := root.Remove(dir + e.Name()); err != nil {
				return err
			}
		}
	}
	for i := 0; ; i++ { // another certificate may have the same hash
		err := root.Symlink(file, fmt.Sprintf("%s%s.%d", dir, hash, i))
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
}

// subjectHash returns what "openssl x509 -hash" prints for a certificate whose
// subject is this common name alone: of the SHA-1 sum of the name in OpenSSL's
// canonical form, in small letters, the first four bytes, the last of them first.
func subjectHash(commonName string) (string, error) {
	type attribute struct {
		Type  asn1.ObjectIdentifier
		Value string `asn1:"utf8"`
	}
	name := strings.Join(strings.Fields(strings.ToLower(commonName)), " ")
	set, err := asn1.MarshalWithParams([]attribute{{asn1.ObjectIdentifier{2, 5, 4, 3}, name}}, "set")
	if err != nil {
		return "", err
	}
	sum := sha1.Sum(set)
	return fmt.Sprintf("%08x", binary.LittleEndian.Uint32(sum[:4])), nil
}
