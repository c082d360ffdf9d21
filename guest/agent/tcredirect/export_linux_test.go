package tcredirect

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Guarded waits until the guard has made its rule.
func (d *Redirect) Guarded() { <-d.guard.done }

// Publish makes rules as a container engine does, in the calling thread's network
// namespace: what comes in for a port of an address leads to a container.
func Publish(port uint16, containers map[netip.Addr]netip.Addr) error {
	const table, chain, priority = "engine", "PREROUTING", -100
	f, err := netlinkSocket(unix.NETLINK_NETFILTER, 0, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	messages := [][]byte{nftMessage(unix.NFT_MSG_NEWTABLE, attr(unix.NFTA_TABLE_NAME, text(table))), natChain(table, chain, priority)}
	for from, to := range containers {
		messages = append(messages, natRule(table, chain, from, port, to))
	}
	return request(f, batch(messages...))
}
