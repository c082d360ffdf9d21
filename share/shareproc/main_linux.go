package shareproc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/hypervisor/kvm/vhostfs"
	"github.com/lsub/lsub/share"
)

// Main is the process: it serves the share that it is told on its control socket until that
// ends. log goes to the one that has started it.
func Main(log *slog.Logger) error {
	unix.CloseOnExec(controlFD)
	f := os.NewFile(controlFD, "control")
	c, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("serve-share is for lsub itself: %w", err)
	}
	f.Close()
	control, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("serve-share is for lsub itself")
	}
	o, _, err := receive(control)
	if err != nil || o.Share == nil {
		return fmt.Errorf("no share: %w", err)
	}
	unix.Umask(0) // the guest's kernel has applied its own
	s, rep := open(*o.Share)
	if err := send(control, rep); err != nil || s == nil {
		return err
	}
	for {
		o, files, err := receive(control)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if o.Cancel {
			s.CancelWaits()
			continue
		}
		go func() {
			if err := serve(s, o, files, log); err != nil {
				log.Error("a connection of a share has failed", "carrier", o.Carrier, "err", err)
			}
		}()
	}
}

// open opens the share, and shuts this process in to its directory.
func open(cfg share.Config) (*share.Server, report) {
	s, err := share.Open(cfg)
	if err != nil {
		return nil, report{Error: err.Error()}
	}
	dir := landlock.RODirs(s.Path())
	if cfg.Writable {
		dir = landlock.RWDirs(s.Path()).WithRefer()
	}
	// Besides files: no new connections, and no signals to others. An older kernel keeps us
	// from what it can.
	if err := landlock.V6.BestEffort().Restrict(dir); err != nil {
		return s, report{Warning: fmt.Sprintf("the process of a share is not shut in by the kernel: %v", err)}
	}
	return s, report{}
}

// receive reads an order and its descriptors.
func receive(control *net.UnixConn) (o order, files []*os.File, err error) {
	buf, oob := make([]byte, 8<<10), make([]byte, unix.CmsgSpace(4*2))
	n, oobn, _, _, err := control.ReadMsgUnix(buf, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return o, nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return o, nil, err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return o, nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "share"))
		}
	}
	return o, files, json.Unmarshal(buf[:n], &o)
}

// serve serves one connection until its end.
func serve(s *share.Server, o order, files []*os.File, log *slog.Logger) error {
	if len(files) == 0 {
		return errors.New("a connection without a descriptor")
	}
	c, err := net.FileConn(files[0])
	files[0].Close()
	if err != nil {
		return err
	}
	conn := c.(*net.UnixConn)
	defer conn.Close()
	if o.Carrier == Stream {
		return s.ServeStream(context.Background(), conn)
	}
	if o.Carrier == Echoes {
		return s.ServeEchoes(context.Background(), conn)
	}
	if len(files) < 2 {
		return errors.New("a device without memory for its requests")
	}
	inflight, err := unix.Mmap(int(files[1].Fd()), 0, vhostfs.InflightLen(o.Queues), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	files[1].Close()
	if err != nil {
		return err
	}
	defer unix.Munmap(inflight)
	return vhostfs.New(s, o.Queues, inflight, log).Serve(conn)
}
