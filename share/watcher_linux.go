package share

import "errors"

// watcher tells of changes in directories of the host: of their entries, and of what the
// entries' files contain and are. A system's own service is behind it, such as fanotify.
// Its methods are safe for concurrent use.
type watcher interface {
	// add watches an entry of the open directory at; "." is the directory itself. It returns
	// the name by which changes tell the directory, for as long as it is watched. The error
	// is errWatchLimit when too many are watched.
	add(at int, name string) (watchKey, error)
	// remove ends the watch on the open directory.
	remove(at int) error
	// read waits for changes. It fails after close.
	read() ([]change, error)
	// removeAll ends all watches.
	removeAll() error
	// close ends read, which releases everything. Nothing else may be called any more.
	close() error
}

// watchKey is a directory, as a watcher tells it.
type watchKey string

var errWatchLimit = errors.New("too many directories are watched")

// change is something that happened to an entry of a directory.
type change struct {
	what kinds
	// own: this process did it.
	own  bool
	dir  watchKey
	name string // "." is the directory itself
	// Where a renamed entry is now. One of both places has no key if its directory is not
	// watched.
	toDir watchKey
	to    string
}

// kinds say what happened. What a watcher tells of one entry may be of several kinds, in
// any order.
type kinds uint16

const (
	made kinds = 1 << iota
	removed
	renamed // alone
	modified
	closedWrite
	attributes
	directory // the entry is, or was, a directory
	lost      // alone: changes that nobody will tell any more
	refreshed // not of a watcher: only attributes that depend on entries
	checked   // not of a watcher: anything may have happened
)
