package kvm

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm/vhostnet"
)

// card is our own network card, which QEMU reaches over vhost-user.
type card struct {
	*vhostnet.Device
	l   *net.UnixListener
	log *slog.Logger
	wg  sync.WaitGroup
}

// openCard prepares a card whose frames go to nic.Attach. QEMU connects to path. The socket
// is removed then, so nobody else can reach the card.
func openCard(nic *hypervisor.NIC, dir string, log *slog.Logger) (c *card, path string, err error) {
	path = filepath.Join(dir, fmt.Sprintf("nic-%d.sock", os.Getpid()))
	os.Remove(path) // left by a killed process with the same number
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, "", fmt.Errorf("no socket for the network card: %w", err)
	}
	c = &card{Device: vhostnet.New(nic.Attach, log), l: l, log: log}
	c.wg.Go(c.run)
	return c, path, nil
}

// run serves the card until QEMU is gone or the card is closed.
func (c *card) run() {
	conn, err := c.l.AcceptUnix()
	c.l.Close() // removes the path
	if err == nil {
		err = c.Serve(conn)
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		c.log.Error("the network card has failed; the VM is cut off", "err", err)
	}
}

// Close removes the card and waits until all its goroutines have ended.
func (c *card) Close() {
	c.l.Close()
	c.Device.Close()
	c.wg.Wait()
	if to, from := c.Dropped(); to|from != 0 {
		c.log.Warn("frames were too large for the network card", "to guest", to, "from guest", from)
	}
}
