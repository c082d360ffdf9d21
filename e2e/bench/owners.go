package main

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// ownersOnly measures what it costs to look up whose each connection is: a VM with
// "ports.users: owner" beside the same VM without it.
func (n *netPeers) ownersOnly() error {
	file := filepath.Join(n.h.dir, "profiles", "default", "profile.yaml")
	if err := os.WriteFile(file, []byte("ports: {users: owner}\n"), 0o600); err != nil {
		return err
	}
	defer os.Remove(file)
	before, err := n.connectionRate()
	if err == nil {
		err = errors.Join(n.h.shutdown(), n.serve(), n.await(n.routes[0]))
	}
	if err != nil {
		return err
	}
	checked, err := n.connectionRate()
	n.b.report.figure("forwarded port, ports.users: owner: connections, 16 at once", "conn/s", checked).beside("users: all", before)
	return err
}

// connectionRate measures how many connections a second our forwarded port takes.
func (n *netPeers) connectionRate() (rate samples, err error) {
	total := n.b.times(800, 80)
	for range n.b.times(5, 2) {
		took, err := n.routes[0].visits(16, total)
		if err != nil {
			return rate, err
		}
		rate = append(rate, float64(total)/took.Seconds())
	}
	return rate, nil
}

// await waits until the server answers over a route.
func (n *netPeers) await(r *route) error {
	for end := time.Now().Add(30 * time.Second); ; {
		err := r.visit()
		if err == nil || time.Now().After(end) {
			return err
		}
		if err := n.b.pause(100 * time.Millisecond); err != nil {
			return err
		}
	}
}
