package listeners

import (
	"context"
	"log/slog"
	"slices"
	"time"
)

const (
	// rest is the least time between two looks at the sockets, so that a process
	// which opens and closes them all the time does not keep a CPU busy.
	rest = 5 * time.Millisecond
	// restShare is the least such time in units of what a look takes.
	restShare = 4
	// pollEvery is the time between two looks where the kernel has no events.
	pollEvery = 200 * time.Millisecond
)

// Watch calls changed with the listeners that [List] returns, at once and at every change,
// until ctx is done. namespaces returns those of isolated distros, and a channel that is
// closed when they may have changed. A new listener is reported before its process is
// known, and then once more. changed must return at once, and must not change the slice.
func Watch(ctx context.Context, log *slog.Logger, namespaces func() ([]*Netns, <-chan struct{}), changed func([]Listener)) error {
	o, err := openOwners()
	if err != nil {
		return err
	}
	defer o.close()
	w := &watcher{namespaces: namespaces, owners: o, log: log, changed: changed, named: make(chan []Listener, 1)}
	start := time.Now()
	ev, err := openEvents(log)
	if err != nil {
		log.Warn("no events of listeners; looking for them time and again", "every", pollEvery, "err", err)
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		return w.run(ctx, nil, tick.C)
	}
	defer ev.close()
	log.Info("listeners are watched", "took", time.Since(start))
	return w.run(ctx, ev.c, nil)
}

type watcher struct {
	namespaces func() ([]*Netns, <-chan struct{})
	views      views
	owners     *owners
	log        *slog.Logger
	changed    func([]Listener)

	all   []Listener
	look  int // how many there were
	named chan []Listener
	busy  bool // the search for processes is under way
}

func (w *watcher) run(ctx context.Context, event <-chan struct{}, tick <-chan time.Time) (err error) {
	if w.views, err = openViews(); err != nil {
		return err
	}
	defer w.views.close()
	defer func() {
		if w.busy {
			<-w.named
		}
	}()
	for {
		start := time.Now()
		namespaces, moved := w.namespaces()
		if err := w.update(namespaces); err != nil {
			return err
		}
		pause := time.NewTimer(max(rest, restShare*time.Since(start)))
		for again := false; !again; {
			select {
			case <-ctx.Done():
				pause.Stop()
				return nil
			case found := <-w.named:
				w.busy = false
				w.adopt(found)
			case <-tick:
				again = true
			case <-event:
				again = true
			case <-moved:
				again = true
			}
		}
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// update takes a look at the sockets, and tells of what is new.
func (w *watcher) update(namespaces []*Netns) error {
	moved := w.views.adjust(namespaces)
	all, err := list(w.views, w.owners, w.all)
	if err != nil {
		return err
	}
	known := map[uint32]*Listener{}
	for i := range w.all {
		known[w.all[i].inode] = &w.all[i]
	}
	for i := range all {
		if k := known[all[i].inode]; k != nil {
			all[i].PID, all[i].Process = k.PID, k.Process
		}
	}
	w.look++
	if w.look > 1 && !moved && slices.Equal(all, w.all) {
		return nil
	}
	w.all = all
	w.owners.forget(all)
	w.changed(slices.Clone(all))
	w.search()
	return nil
}

// search begins to look for the processes that are not known.
func (w *watcher) search() {
	if w.busy || !slices.ContainsFunc(w.all, func(l Listener) bool { return l.PID == 0 }) {
		return
	}
	w.busy = true
	found := slices.Clone(w.all)
	paths := w.owners.pathsOf(found)
	go func() {
		name(found, paths)
		w.named <- found
	}()
}

// adopt takes over the processes that were found.
func (w *watcher) adopt(found []Listener) {
	byInode := map[uint32]*Listener{}
	for i := range found {
		byInode[found[i].inode] = &found[i]
	}
	news, late := false, false
	for i := range w.all {
		l := &w.all[i]
		switch f := byInode[l.inode]; {
		case l.PID != 0:
		case f == nil:
			late = true // it came while the search went on
		case f.PID != 0:
			l.PID, l.Process, news = f.PID, f.Process, true
		}
	}
	if news {
		w.changed(slices.Clone(w.all))
	}
	if late {
		w.search()
	}
}
