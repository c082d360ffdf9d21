package kvm_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
)

const helperEnv = "LSUB_TEST_KVM_HELPER"

func helper() {}

func testLogger(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestConformance(t *testing.T) {
	needVM(t)
	hvtest.Conformance(t, harness())
}

var _ = []any{context.Background, fmt.Sprint, io.EOF, net.ErrClosed, os.Getpid, filepath.Join, strings.Cut, hypervisor.MinMemory}
