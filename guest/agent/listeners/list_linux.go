package listeners

// List returns the listeners of the distros that share the VM's network and of those whose
// namespaces are given, each with its process, sorted by distro and port. It looks at all
// open files of all processes, which takes some milliseconds.
func List(namespaces []*Netns) ([]Listener, error) {
	o, err := openOwners()
	if err != nil {
		return nil, err
	}
	defer o.close()
	v, err := openViews()
	if err != nil {
		return nil, err
	}
	defer v.close()
	v.adjust(namespaces)
	all, err := list(v, o, nil)
	if err != nil {
		return nil, err
	}
	name(all, o.pathsOf(all))
	return all, nil
}

// list returns the listeners of distros, without processes; before is what there
// was the last time.
func list(v views, o *owners, before []Listener) ([]Listener, error) {
	was := map[uint32]bool{}
	for _, l := range before {
		was[l.inode] = l.Network == UDP
	}
	all := make([]Listener, 0, len(before)+8)
	for ns, d := range v {
		tcp, udp, err := d.dump()
		if err != nil {
			return nil, err
		}
		add := func(network string, s socket) {
			id := o.distro(s)
			if id == "" || s.addr.Port() == 0 {
				return
			}
			all = append(all, Listener{
				Network: network, Addr: s.addr, V6Only: s.v6only, Distro: id, Group: groupInside(o.path(s.group)),
				Isolated: ns != nil, inode: s.inode, group: s.group,
			})
		}
		for _, s := range tcp {
			add(TCP, s)
		}
		for _, s := range udp {
			// A server may connect the socket that it listened with to its first
			// client (iperf3 does), and open another one to go on.
			if s.state == stateClose || was[s.inode] {
				add(UDP, s)
			}
		}
	}
	return merge(all), nil
}
