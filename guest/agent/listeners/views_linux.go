package listeners

import "os"

// view is the way to look at the sockets of one network namespace. The namespace
// lasts at least as long.
type view struct {
	diag *diag
	gone *os.File // tells of UDP sockets that are gone; nil where nobody listens to it
}

// views are those of the VM's network namespace, by nil, and of spaces. They are
// for one goroutine at a time.
type views map[*Space]view

// openViews opens that of the VM's namespace, which the calling thread is in. The
// caller closes the views. With events, they tell of sockets that are gone.
func openViews(ev *events) (views, error) {
	v := views{}
	if err := v.add(nil, ev); err != nil {
		return nil, err
	}
	return v, nil
}

// adjust opens those of spaces, and closes those of other spaces. It tells whether
// there were any.
func (v views) adjust(spaces []*Space, ev *events) (changed bool) {
	due := map[*Space]bool{nil: true}
	for _, s := range spaces {
		due[s] = true
		if _, ok := v[s]; ok {
			continue
		}
		// A space is known before its distro is gone; then it cannot be looked at any more.
		changed = s.Do(func() error { return v.add(s, ev) }) == nil || changed
	}
	for s, w := range v {
		if !due[s] {
			w.close()
			delete(v, s)
			changed = true
		}
	}
	return changed
}

// add opens a view of the calling thread's network namespace.
func (v views) add(s *Space, ev *events) error {
	d, err := openDiag()
	if err != nil {
		return err
	}
	w := view{diag: d}
	if ev != nil {
		if w.gone, err = openDestroyed(); err != nil {
			d.close()
			return err
		}
		go ev.readDestroyed(w.gone)
	}
	v[s] = w
	return nil
}

func (w view) close() {
	w.diag.close()
	if w.gone != nil {
		w.gone.Close()
	}
}

func (v views) close() {
	for _, w := range v {
		w.close()
	}
}
