package listeners

import "net/netip"

// clientStates are the states of TCP connections that somebody has not done with.
const clientStates = 1<<stateEstablished | 1<<stateFinWait1 | 1<<stateFinWait2 | 1<<stateCloseWait

// Clients counts the TCP connections that distros which share the VM's network have on
// its loopback with clients outside the VM: with a port from first on that no socket in
// the VM has. The result is by distro id.
func Clients(first uint16) (map[string]int, error) {
	o, err := openOwners()
	if err != nil {
		return nil, err
	}
	defer o.close()
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	defer d.close()
	var all []socket
	for _, family := range []byte{familyIPv4, familyIPv6} {
		some, err := d.ask(family, protoTCP, clientStates)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return countClients(all, first, o.distro), nil
}

// countClients counts the sockets of connections, by what distro returns for them.
func countClients(all []socket, first uint16, distro func(socket) string) map[string]int {
	type ends struct{ one, other netip.AddrPort }
	here := map[ends]bool{}
	for _, s := range all {
		here[ends{s.addr, s.peer}] = true
	}
	count := map[string]int{}
	for _, s := range all {
		if s.peer.Port() < first || !s.peer.Addr().IsLoopback() || here[ends{s.peer, s.addr}] {
			continue
		}
		if id := distro(s); id != "" {
			count[id]++
		}
	}
	return count
}
