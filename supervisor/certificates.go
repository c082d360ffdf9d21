package supervisor

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

const (
	// maxBundle is the most bytes of the profile's certificates.
	maxBundle = 4 << 20
	// certificatesTimeout bounds what a distro does to take them.
	certificatesTimeout = 3 * time.Minute
)

// addCertificates has a distro that runs trust the profile's certificates. The registry
// knows which ones it has, so that this is done once. tell hears of it before.
func (s *supervisor) addCertificates(ctx context.Context, d *machine.Distro, p *profile.Profile, tell func(stage string)) error {
	if p.Network.CABundle == "" && d.CA == "" {
		return nil
	}
	certs, err := readBundle(p.Network.CABundle)
	if err != nil {
		return fmt.Errorf("%s: network.ca_bundle: %w", p.At("network.ca_bundle"), err)
	}
	id := ""
	if len(certs) > 0 {
		sum := sha256.Sum256(bytes.Join(certs, nil))
		id = hex.EncodeToString(sum[:])
	}
	if id == d.CA {
		return nil
	}
	tell("adding the profile's certificates to " + d.Name)
	ctx, cancel := context.WithTimeout(ctx, certificatesTimeout)
	defer cancel()
	var said bytes.Buffer
	exit, err := s.client().Exec(ctx,
		&guestv1.Exec{Distro: d.Guest(), Argv: [][]byte{[]byte("/bin/sh"), []byte("-s")}, User: []byte("root"), Cwd: []byte("/")},
		guest.Stdio{Stdin: strings.NewReader(trustScript(certs)), Stdout: &said, Stderr: &said})
	if err == nil && exit.Status() != 0 {
		err = fmt.Errorf("%s does not take them: status %d: %s", d.Name, exit.Status(), lastLine(said.String()))
	}
	if err != nil {
		return fmt.Errorf("add the profile's certificates: %w", err)
	}
	return s.m.Update(ctx, func(r *machine.Registry) error {
		return r.Change(d.ID, func(d *machine.Distro) error { d.CA = id; return nil })
	})
}

// readBundle returns the certificates in a file; none where path is "".
func readBundle(path string) ([][]byte, error) {
	if path == "" {
		return nil, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, err
	}
	if path, err = profile.Expand(path, home, os.Getenv); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	rest, err := io.ReadAll(io.LimitReader(f, maxBundle+1))
	if err != nil {
		return nil, err
	}
	if len(rest) > maxBundle {
		return nil, fmt.Errorf("%s has more than %d bytes", path, maxBundle)
	}
	var certs [][]byte
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" { // a key has no business in a distro
			return nil, fmt.Errorf("%s has a %s; it may have certificates alone", path, strings.ToLower(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, len(certs)+1, err)
		}
		certs = append(certs, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	if len(certs) == 0 {
		return nil, errors.New(path + " has no certificate in PEM form")
	}
	return certs, nil
}

// trustScript replaces the certificates that lsub has given a distro, each in a
// file of its own as Debian wants it. A distro without the tool gets the files:
// the tool takes them when it is installed.
func trustScript(certs [][]byte) string {
	var b strings.Builder
	b.WriteString(`set -e
if [ -d /etc/pki/ca-trust/source ]; then
	dir=/etc/pki/ca-trust/source/anchors tool=update-ca-trust fresh=extract # Fedora, Alma, Rocky
elif [ -d /etc/ca-certificates/trust-source ]; then
	dir=/etc/ca-certificates/trust-source/anchors tool=update-ca-trust fresh=extract # Arch
elif [ -d /etc/pki/trust ]; then
	dir=/etc/pki/trust/anchors tool=update-ca-certificates fresh= # SUSE
else
	dir=/usr/local/share/ca-certificates tool=update-ca-certificates fresh=--fresh # Debian, Ubuntu, Alpine
fi
mkdir -p "$dir"
rm -f "$dir"/lsub-*.crt
`)
	for i, c := range certs {
		fmt.Fprintf(&b, "cat > \"$dir/lsub-%03d.crt\" <<'END'\n%sEND\n", i+1, c)
	}
	// update-ca-certificates leaves the old list where no certificate is left.
	b.WriteString(`if command -v $tool > /dev/null; then
	list=/etc/ssl/certs/ca-certificates.crt
	[ $tool = update-ca-certificates ] && [ -f $list ] && touch -d @0 $list
	$tool $fresh < /dev/null || $tool < /dev/null
	[ -f $list ] && [ "$(stat -c %Y $list)" = 0 ] && : > $list
	true
fi
`)
	return b.String()
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
