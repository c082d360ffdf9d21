package agent

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/agent/listeners"
	"github.com/lsub/lsub/guest/agent/network"
	"github.com/lsub/lsub/guest/agent/store"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
	"github.com/lsub/lsub/vsocksecret"
)

// Config tells an agent about the VM that it runs in.
type Config struct {
	Version string        // of lsub
	Kernel  string        // release
	Data    string        // where the data disk (btrfs) is mounted
	Modules string        // directory with the kernel's modules; "" for none
	Network network.VM    // whose gateway is the name server of the distros
	Search  []string      // as guest.BootArgs.Search
	Idle    time.Duration // as guest.BootArgs.Idle
	Shared  string        // directory that all distros see as /mnt/lsub; "" for none
	Host    string        // directory that all distros see as /mnt/host, and shares are mounted in; "" for none
	Tools   string        // directory that all distros see as distroinit.ToolsDir; "" for none
	Boot    []*guestv1.BootStep
	// Secret is what the host says first on each stream for forwarded connections. Those for
	// control and other streams are the caller's to check.
	Secret vsocksecret.Secret
	// PowerOff ends the VM. The agent calls it when every distro is stopped.
	PowerOff func()
	Logger   *slog.Logger // nil discards
}

// Agent serves the guest protocol. It is safe for concurrent use.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	store *store.Store

	mu        sync.Mutex
	distros   map[string]*distro       // that run, start or stop, by id
	fileLocks map[string]chan struct{} // by id of a distro whose files are being changed or copied; closed when that is done
	changed   chan struct{}            // closed and replaced when distros come or go
	stopping  bool                     // no distro starts any more

	shares   shares
	pending  pendingAccepts
	fastPath fastPath
	ttys     ttyEvents
	// listening and clients are List and Clients of listeners, but for tests.
	listening func([]*listeners.Netns) ([]listeners.Listener, error)
	clients   func(first uint16) (map[string]int, error)

	server *http.Server // of the control port
}

// Open returns an agent that keeps its files on the data disk at cfg.Data, and removes
// from there what an interrupted import has left.
func Open(cfg Config) (*Agent, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	st, err := store.Open(cfg.Data, cfg.Logger)
	if err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Logger, store: st, distros: map[string]*distro{},
		fileLocks: map[string]chan struct{}{}, changed: make(chan struct{}), listening: listeners.List, clients: listeners.Clients}
	mux := http.NewServeMux()
	mux.Handle(guestv1connect.NewGuestHandler(control{a}, guest.ServerOptions()))
	a.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	return a, nil
}

// ServeControl serves the Guest service on l until the agent powers off.
func (a *Agent) ServeControl(l net.Listener) error { return a.server.Serve(l) }

// ServeStreams serves streams on l until l fails.
func (a *Agent) ServeStreams(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		setBufferSize(conn, streamBuffer)
		go a.serveStream(conn)
	}
}

// serveStream serves one stream: its request, then what the request asks for.
func (a *Agent) serveStream(conn net.Conn) {
	defer conn.Close()
	r, w := guest.NewReader(conn), guest.NewWriter(conn)
	var req guestv1.StreamRequest
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if err := r.Expect(guest.FrameRequest, &req); err != nil {
		a.log.Warn("stream without a request", "err", err)
		return
	}
	conn.SetReadDeadline(time.Time{})
	if req.GetImportImage() != nil {
		setBufferSize(conn, importWindow)
	}
	if share, echoes := req.GetShare(), req.GetEchoes(); (share != nil || echoes != nil) && req.Version == a.cfg.Version {
		var err error
		if share != nil {
			err = a.streamShare(conn, w, share)
		} else {
			err = a.echoShare(conn, w, echoes.Path)
		}
		if err != nil {
			w.SendMessage(guest.FrameError, guest.ErrorMessage(err))
		}
		return
	}
	exit, err := a.handle(r, w, &req)
	if err != nil {
		w.SendMessage(guest.FrameError, guest.ErrorMessage(err))
		return
	}
	w.SendMessage(guest.FrameExit, exit)
}

func (a *Agent) handle(r *guest.Reader, w *guest.Writer, req *guestv1.StreamRequest) (*guestv1.Exit, error) {
	if req.Version != a.cfg.Version {
		return nil, guest.OtherVersion(a.cfg.Version, req.Version)
	}
	if m := req.GetImportImage(); m != nil {
		in := newImportReader(r, w)
		defer func() { go in.drain() }() // the end of the connection ends it
		w.SendMessage(guest.FrameStarted, &guestv1.Started{})
		return &guestv1.Exit{}, a.store.ImportImage(m.Id, in)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	in := &hostInput{stdin: newStdinBuffer(w)}
	if cmd := req.GetExec(); cmd != nil {
		in.controls = make(chan controlFrame, 16)
		if cmd.Tty && cmd.Pipes != nil {
			in.keys = newKeysBuffer(w)
		}
	}
	go func() {
		defer cancel() // the host is gone
		in.fail(in.receive(r))
	}()
	switch k := req.Kind.(type) {
	case *guestv1.StreamRequest_Exec:
		return a.exec(ctx, k.Exec, in, w)
	case *guestv1.StreamRequest_Export:
		return a.export(ctx, k.Export, w)
	}
	return nil, guest.NothingAsked()
}

// stopAll stops every distro, and keeps further ones from starting.
func (a *Agent) stopAll(grace time.Duration) {
	a.mu.Lock()
	a.stopping = true
	var all []*distro
	for _, d := range a.distros {
		all = append(all, d)
	}
	a.mu.Unlock()
	var wg sync.WaitGroup
	for _, d := range all {
		wg.Go(func() { d.stop(grace) })
	}
	wg.Wait()
}
