package main

import (
	"log/slog"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm"
	"github.com/lsub/lsub/virtionet"
)

func init() {
	realMac = func() backend {
		b := production()
		b.driver = func(log *slog.Logger) (hypervisor.Driver, error) {
			return macDriver(kvm.New(kvm.Options{Framing: virtionet.Datagram, VirtioConsole: true, Logger: log}), true, log), nil
		}
		return b
	}
}

// TestMac runs a script in the real guest, with macOS' driver over its stand-in.
func TestMac(t *testing.T) {
	if os.Getenv("LSUB_TEST_VM") != "1" {
		t.Skip("set LSUB_TEST_VM=1 to run the tests that boot a VM")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/mac", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			if err := setUpScript(e); err != nil {
				return err
			}
			e.Setenv("XDG_CACHE_HOME", cache) // which has the images of other tests
			e.Setenv("LSUBTEST_MAC", "real")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": scriptStatus, "talk": scriptTalk, "eventually": scriptEventually, "freeport": scriptFreePort},
	})
}
