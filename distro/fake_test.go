package distro_test

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest/guesttest"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/hvtest"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/supervisor"
)

// fakeService returns the Service of a new profile whose VM is a fake: its supervisor
// runs in this process and its guest is package guesttest. stop ends the VM.
func fakeService(e distro.Events) (s *distro.Service, stop func(), err error) {
	dir, err := os.MkdirTemp("", "lsub-") // short: a socket's path is
	if err != nil {
		return nil, nil, err
	}
	paths := machine.Paths{Home: filepath.Join(dir, "home"), Runtime: filepath.Join(dir, "run"), Cache: filepath.Join(dir, "cache")}
	cfg := machine.Config{Profile: "default", Paths: paths, Version: "1.0"}
	m, err := machine.Open(cfg)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- supervise(ctx, m, cfg) }()
	for { // until the guest serves
		st, err := m.Status(ctx)
		if err == nil && len(st.Boot) > 0 {
			break
		}
		select {
		case err := <-ended:
			cancel()
			return nil, nil, err
		case <-time.After(time.Millisecond):
		}
	}
	s = distro.New(distro.Config{Machine: m, Paths: paths, Version: cfg.Version, Events: e, Getenv: func(string) string { return "" }})
	return s, func() {
		cancel()
		<-ended
		os.RemoveAll(dir)
	}, nil
}

// supervise runs the fake VM of a machine until ctx ends.
func supervise(ctx context.Context, m *machine.Machine, cfg machine.Config) error {
	fake := &hvtest.Fake{Guest: func(g *hvtest.Guest) error {
		return guesttest.Run(g, guesttest.Options{Version: cfg.Version, Disk: m.DataDisk(), Console: g.Console()})
	}}
	return supervisor.Run(ctx, supervisor.Config{
		Config: cfg, Driver: fake, CPUs: 1, Memory: hypervisor.MinMemory,
		Guest: func(context.Context) (supervisor.GuestFiles, error) {
			exe, err := os.Executable() // any file will do
			return supervisor.GuestFiles{Kernel: exe, System: exe}, err
		},
	})
}

// tinyImage is an archive that can become a distro.
func tinyImage() *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755})
	w.WriteHeader(&tar.Header{Name: "./bin/sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: 2})
	w.Write([]byte("sh"))
	w.Close()
	return &b
}
