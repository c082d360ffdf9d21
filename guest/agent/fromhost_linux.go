package agent

import (
	"errors"
	"log/slog"
	"net"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// FromHost returns a listener that takes l's connections from the host and refuses all
// others: processes in the VM, and VMs in it, can reach a vsock port too. Its Accept goes on
// after an error that passes, such as no file being left: nothing could be served otherwise.
func FromHost(l net.Listener, log *slog.Logger) net.Listener { return fromHost{l, log} }

type fromHost struct {
	net.Listener
	log *slog.Logger
}

// acceptPause is how long nothing is accepted after an error.
const acceptPause = 100 * time.Millisecond

func (l fromHost) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		switch {
		case err == nil:
			if from, ok := conn.RemoteAddr().(*vsock.Addr); !ok || from.ContextID == vsock.Host {
				return conn, nil
			}
			conn.Close()
		case passes(err):
			l.log.Warn("connections are not accepted for a moment", "err", err)
			time.Sleep(acceptPause)
		default:
			return nil, err
		}
	}
}

// passes tells whether what an accept failed with may be over in a moment.
func passes(err error) bool {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED, unix.EINTR, unix.EAGAIN} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
