package listeners

// views are the ways to look at the sockets of network namespaces: of the VM's,
// by nil, and of namespaces. A namespace lasts at least as long. They are for one goroutine at
// a time.
type views map[*Netns]*diag

// openViews opens that of the VM's namespace, which the calling thread is in. The
// caller closes the views.
func openViews() (views, error) {
	v := views{}
	if err := v.add(nil); err != nil {
		return nil, err
	}
	return v, nil
}

// adjust opens those of namespaces, and closes those of other namespaces. It tells whether
// there were any.
func (v views) adjust(namespaces []*Netns) (changed bool) {
	due := map[*Netns]bool{nil: true}
	for _, s := range namespaces {
		due[s] = true
		if _, ok := v[s]; ok {
			continue
		}
		// A namespace is known before its distro is gone; then it cannot be looked at any more.
		changed = s.Do(func() error { return v.add(s) }) == nil || changed
	}
	for s, d := range v {
		if !due[s] {
			d.close()
			delete(v, s)
			changed = true
		}
	}
	return changed
}

// add opens a view of the calling thread's network namespace.
func (v views) add(s *Netns) error {
	d, err := openDiag()
	if err == nil {
		v[s] = d
	}
	return err
}

func (v views) close() {
	for _, d := range v {
		d.close()
	}
}
