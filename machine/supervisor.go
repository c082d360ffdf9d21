package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/lsub/lsub/filelock"
)

// Config returns the configuration that the machine was opened with.
func (m *Machine) Config() Config { return m.cfg }

// LockSupervisor takes the lock that a supervisor holds as long as it lives. It
// waits as long as ctx allows. The caller calls unlock.
func (m *Machine) LockSupervisor(ctx context.Context) (unlock func(), err error) {
	l, err := filelock.Acquire(ctx, m.path("supervisor.lock"), nil)
	if err != nil {
		return nil, err
	}
	return func() { l.Release() }, nil
}

// Listen opens the profile's socket for its supervisor. The caller holds the
// supervisor's lock, so a socket that is there was left by one that was killed.
// Closing the listener removes the socket.
func (m *Machine) Listen() (net.Listener, error) {
	dir, err := m.RuntimeDir()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	ln, err := listenSocket(path)
	if err != nil {
		return nil, fmt.Errorf("open the profile's socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}
