package main

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// netPeers is a VM with two more network cards: one of QEMU's own user-mode
// network with hostfwd, one of passt. QEMU is started through a script that adds
// them, so that lsub itself is what users have.
type netPeers struct {
	b       *bench
	h       *home
	routes  []*route // ours first
	cards   []card
	hosts   []netHost // by which the guest reaches the host, ours first
	closers []func()
}

// card is a network card as the guest sets it up.
type card struct {
	mac, addr string
	mtu       int
}

type netHost struct{ name, addr string }

const (
	slirpPeer = "QEMU's hostfwd"
	passtPeer = "passt"
)

func (b *bench) newNetPeers() (*netPeers, error) {
	h, err := b.newHome("forward")
	if err != nil {
		return nil, err
	}
	n := &netPeers{b: b, h: h}
	n.routes = []*route{{name: "lsub", port: netPort}}
	n.hosts = []netHost{{"lsub", "host.lsub.internal"}}
	args := n.slirp()
	more, err := n.passt()
	if err != nil {
		b.say("forward: without passt: %v", err)
	}
	return n, h.wrapQEMU(append(args, more...))
}

func qemuArch() string {
	out, _ := exec.Command("uname", "-m").Output()
	return strings.TrimSpace(string(out))
}

// slirp adds a card of QEMU's own network.
func (n *netPeers) slirp() []string {
	r := &route{name: slirpPeer, port: netPort + 100}
	n.routes = append(n.routes, r)
	n.cards = append(n.cards, card{"52:54:00:00:03:0f", "10.0.3.15/24", 1500})
	n.hosts = append(n.hosts, netHost{slirpPeer, "10.0.3.2"})
	opts := []string{"user", "id=slirp", "net=10.0.3.0/24"}
	for i := range netPorts {
		opts = append(opts, fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-10.0.3.15:%d", r.port+i, netPort+i))
	}
	return []string{"-netdev", words(opts...), "-device", "virtio-net-pci,netdev=slirp,romfile=,mac=52:54:00:00:03:0f"}
}

// passt starts Debian's passt, and adds a card that it serves.
func (n *netPeers) passt() ([]string, error) {
	root, err := n.b.debianPackage("passt", "bookworm")
	if err != nil {
		return nil, err
	}
	r := &route{name: passtPeer, port: netPort + 200}
	socket := filepath.Join(n.b.dir, "passt.sock")
	var ports []string
	for i := range netPorts {
		ports = append(ports, fmt.Sprintf("%d:%d", r.port+i, netPort+i))
	}
	end, err := n.b.serve([]string{filepath.Join(root, "usr/bin/passt"), "--foreground", "--runas", "0", "--socket", socket,
		"--address", "10.0.4.15", "--netmask", "24", "--gateway", "10.0.4.2", "--mtu", "65520", "-t", "127.0.0.1/" + strings.Join(ports, ","), "-u", "none"}, socket)
	if err != nil {
		return nil, err
	}
	n.closers = append(n.closers, func() { end() })
	n.routes = append(n.routes, r)
	n.cards = append(n.cards, card{"52:54:00:00:04:0f", "10.0.4.15/24", 65520})
	n.hosts = append(n.hosts, netHost{passtPeer, "10.0.4.2"})
	return []string{"-netdev", "stream,id=passt,server=off,addr.type=unix,addr.path=" + socket,
		"-device", "virtio-net-pci,netdev=passt,romfile=,mac=52:54:00:00:04:0f"}, nil
}

// close ends what was started, the last first.
func (n *netPeers) close() {
	for i := len(n.closers) - 1; i >= 0; i-- {
		n.closers[i]()
	}
}
