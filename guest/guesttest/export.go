package guesttest

import (
	"archive/tar"
	"cmp"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// export sends a small root file system whose shell says of which distro it is.
// A distro whose id begins with "sockets" has a file that cannot be exported.
// One that begins with "endless" goes on until the host is gone, after it has
// told the test by the FIFO that LSUBTEST_EXPORT names.
func (g *Guest) export(m *guestv1.Export, s *stream) (*guestv1.Exit, error) {
	id := cmp.Or(m.GetDistro(), m.GetSnapshot().GetDistro())
	if err := g.disk.checkExport(m); err != nil {
		return nil, err
	}
	body := id + m.GetSnapshot().GetId()
	s.w.SendMessage(guest.FrameStarted, &guestv1.Started{Bytes: uint64(4<<10 + len(body))})
	if strings.HasPrefix(id, "sockets") {
		s.w.Send(guest.FrameStderr, []byte("/tmp/.X11-unix/X0 is left out: a socket means nothing without the process behind it\n"))
	}
	out := frameWriter{s.w, guest.FrameStdout}
	w := tar.NewWriter(out)
	var err error
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1e9, 0)},
		{Name: "./bin/", Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1e9, 0)},
		{Name: "./bin/sh", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(body)), ModTime: time.Unix(1e9, 0)},
	} {
		err = errors.Join(err, w.WriteHeader(h))
	}
	_, werr := io.WriteString(w, body)
	if err = errors.Join(err, werr); err == nil && strings.HasPrefix(id, "endless") {
		err = endless(w, out)
	}
	return &guestv1.Exit{}, errors.Join(err, w.Close())
}

func (d *disk) checkExport(m *guestv1.Export) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.GetSnapshot() != nil {
		return d.checkSnapshot(m.GetSnapshot())
	}
	if _, ok := d.data.Distros[m.GetDistro()]; !ok {
		return guest.NoDistro(m.GetDistro())
	}
	return nil
}

func endless(w *tar.Writer, out io.Writer) error {
	if err := w.Flush(); err != nil {
		return err
	}
	if fifo := os.Getenv("LSUBTEST_EXPORT"); fifo != "" {
		if err := os.WriteFile(fifo, nil, 0); err != nil {
			return err
		}
	}
	for block := make([]byte, 64<<10); ; {
		if _, err := out.Write(block); err != nil {
			return err
		}
	}
}
