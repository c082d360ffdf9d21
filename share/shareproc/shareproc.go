// Package shareproc runs the server of a share (package share) as a process of its own, which
// the kernel (Landlock) shuts in to the share's directory: whoever takes the server over has
// that directory, and nothing else.
//
//	p := shareproc.New(shareproc.Config{Argv: []string{"/usr/bin/lsub", "serve-share"}, Share: cfg, Logger: log})
//	conn, err := p.Connect(ctx, shareproc.Stream) // carries FUSE requests
//	…
//	p.Close()
//
// That program calls [Main]. Connect starts the process if none runs, and another one when it
// has died.
package shareproc

import (
	"log/slog"

	"github.com/lsub/lsub/share"
)

// Config describes a share's process.
type Config struct {
	Argv   []string // the program and arguments that end in Main
	Share  share.Config
	Logger *slog.Logger
}

// Carrier is what a connection to the process carries.
type Carrier string

const (
	Stream    Carrier = "stream"     // FUSE requests and answers, see [share.Server.ServeStream]
	Echoes    Carrier = "echoes"     // what changes on the host, see [share.Server.ServeEchoes]
	VhostUser Carrier = "vhost-user" // of a file system device; see package vhostfs
)

// controlFD is the process's end of the control socket.
const controlFD = 3

// order is what the process is told on the control socket: the share first, then each
// connection, whose descriptor comes along.
type order struct {
	Share   *share.Config `json:",omitempty"`
	Carrier Carrier       `json:",omitempty"`
	Queues  int           `json:",omitempty"` // of requests, of a device
	Cancel  bool          `json:",omitempty"` // end the requests that wait
}

// report is what it answers to the first: that it serves, or why it cannot.
type report struct {
	Error   string `json:",omitempty"`
	Warning string `json:",omitempty"`
}
