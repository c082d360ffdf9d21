package sshproxy

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	gossh "golang.org/x/crypto/ssh"

	"github.com/lsub/lsub/atomicfile"
	"github.com/lsub/lsub/filelock"
)

// HostName is what clients know the server as, whatever it is called in their configuration.
const HostName = "lsub"

// HostKey returns the server's key, which is kept in a directory of the user's alone, and makes
// it where it is missing or broken. What clients know of it, the file [KnownHosts], is made anew
// where it does not fit.
func HostKey(ctx context.Context, dir string) (gossh.Signer, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := filelock.Acquire(ctx, filepath.Join(dir, "lock"), nil)
	if err != nil {
		return nil, err
	}
	defer lock.Release()
	file := filepath.Join(dir, "host_key")
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := gossh.ParsePrivateKey(text)
	if err != nil {
		if text, err = newKey(); err != nil {
			return nil, err
		}
		if err := atomicfile.Write(file, text, 0o600); err != nil {
			return nil, fmt.Errorf("keep the key of the SSH server: %w", err)
		}
		if key, err = gossh.ParsePrivateKey(text); err != nil {
			return nil, err
		}
	}
	known := []byte(HostName + " " + string(gossh.MarshalAuthorizedKey(key.PublicKey())))
	if have, err := os.ReadFile(KnownHosts(dir)); err == nil && bytes.Equal(have, known) {
		return key, nil
	}
	return key, atomicfile.Write(KnownHosts(dir), known, 0o600)
}

// KnownHosts is the file, in the directory of [HostKey], that has the server's key for clients.
func KnownHosts(dir string) string { return filepath.Join(dir, "known_hosts") }

func newKey() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := gossh.MarshalPrivateKey(private, HostName)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(block), nil
}

// HostBlock returns what OpenSSH's configuration says of a distro. dir is that of [HostKey];
// proxy is the command that serves the connection, word by word.
func HostBlock(host, dir string, proxy []string) string {
	var words []string
	for _, w := range proxy {
		words = append(words, quoted(w))
	}
	lines := []string{
		"Host " + host,
		"  User " + DefaultUser,
		"  ProxyCommand " + strings.ReplaceAll(strings.Join(words, " "), "%", "%%"),
		"  HostKeyAlias " + HostName,
		"  UserKnownHostsFile \"" + strings.ReplaceAll(filepath.ToSlash(KnownHosts(dir)), "%", "%%") + "\"",
		"  StrictHostKeyChecking yes",
	}
	return strings.Join(lines, "\n") + "\n"
}

// quoted is a word for the user's shell, which runs a ProxyCommand.
func quoted(w string) string {
	if strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-=:") == "" && w != "" {
		return w
	}
	if os.PathSeparator == '\\' {
		return `"` + w + `"`
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
