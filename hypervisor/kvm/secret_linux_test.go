package kvm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/hypervisor/hvtest/protocol"
	"github.com/lsub/lsub/vsocksecret"
)

// TestSecret boots a guest that has got a secret with its initrd, as with the kernel's vsock: a
// stream that does not begin with it gets no answer.
func TestSecret(t *testing.T) {
	needVM(t)
	noLeak(t)
	h := harness()
	h.Driver = New(Options{Accel: Accel(os.Getenv("LSUB_ACCEL")), VSock: VSockUser})
	cfg := h.Config(t)
	secret := vsocksecret.New()
	l := launch{cfg: &cfg}
	remove, err := l.giveSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	defer remove()
	if info, err := os.Stat(filepath.Join(cfg.Dir, "initrd")); err != nil || info.Mode() != 0o600 {
		t.Errorf("the initrd with the secret: %v, %v", info, err)
	}
	vm, _ := h.Boot(t, *l.cfg)
	ask := func(first []byte) string {
		c := h.Dial(t, vm, protocol.ControlPort)
		defer c.Close()
		c.Write(append(bytes.Clone(first), "cmdline\n"...))
		b, _ := io.ReadAll(c)
		return string(b)
	}
	if got := ask(secret); !strings.HasPrefix(got, "ok") {
		t.Errorf("with the secret: %q", got)
	}
	for name, first := range map[string][]byte{"another secret": vsocksecret.New(), "zeros": make([]byte, vsocksecret.Size)} {
		if got := ask(first); got != "" {
			t.Errorf("with %s: %q", name, got)
		}
	}
}
