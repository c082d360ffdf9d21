package distro

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/transfer"
)

// Tool is the program that lsub runs in distros.
const Tool = "/run/lsub/bin/lsub-tool"

// CopyPlace is where a copy comes from or goes to.
type CopyPlace struct {
	Distro *machine.Distro // nil is the host
	// Path is one of the host, or of the distro: there a relative one, and one that begins
	// with "~/", is below the user's home folder.
	Path string
}

// CopyOptions say what is copied.
type CopyOptions struct {
	From   []CopyPlace // at least one, all of one side
	To     CopyPlace
	User   string // of the distros; "" is their default user
	Resume bool   // go on with a copy that broke off
	// Stdin, where set, is copied to the file To; From is empty then.
	Stdin io.Reader
	// Stdout, where set, gets the one file of From; To does not count then.
	Stdout io.Writer
}

// Copy copies files and folders between the host and a distro, or from one distro to another.
// It starts the VM and the distros where they are off. Package transfer says what is kept of
// a file. When Copy fails or is interrupted, nothing half-written has its final name; with
// Resume, a second call goes on.
func (s *Service) Copy(ctx context.Context, o CopyOptions) error {
	count := &counter{step: Step{Text: "copying", Bytes: true}, report: s.events.Progress}
	c := &copying{s: s, o: o, count: count}
	send, receive := c.sender(), c.receiver()
	err := c.run(ctx, send, receive)
	s.done()
	switch {
	case err != nil:
		return c.explain(ctx, err)
	case c.skipped > 0:
		return fmt.Errorf("%s not copied", countOf(c.skipped, "file was", "files were"))
	}
	return nil
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// copying is a copy that is under way.
type copying struct {
	s     *Service
	o     CopyOptions
	count *counter

	mu      sync.Mutex
	first   error // that came first; the others follow from it
	skipped int
}

// A side of a copy reads the other's stream from r and writes its own to w.
type side func(ctx context.Context, r io.Reader, w io.Writer) error

// run connects the two sides, and returns the first error of both.
func (c *copying) run(ctx context.Context, send, receive side) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	data, dataW := io.Pipe()
	have, haveW := io.Pipe()
	stop := context.AfterFunc(ctx, func() { // ends reads and writes that wait for the other side
		data.CloseWithError(context.Canceled)
		dataW.CloseWithError(context.Canceled)
		have.CloseWithError(context.Canceled)
		haveW.CloseWithError(context.Canceled)
	})
	defer stop()
	var sides sync.WaitGroup
	end := func(err error, r *io.PipeReader, w *io.PipeWriter) {
		if err != nil {
			c.fail(err)
			cancel()
			return
		}
		w.Close()
		r.Close()
	}
	sides.Go(func() { end(send(ctx, have, io.MultiWriter(dataW, c.count)), have, dataW) })
	sides.Go(func() { end(receive(ctx, data, haveW), data, haveW) })
	sides.Wait()
	return c.first
}

func (c *copying) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = err
	}
}

func (c *copying) skip(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.skipped += n
}

func (c *copying) sender() side {
	var paths []string
	for _, p := range c.o.From {
		paths = append(paths, p.Path)
	}
	switch {
	case c.o.Stdin != nil:
		return func(_ context.Context, _ io.Reader, w io.Writer) error { return transfer.SendRaw(w, c.o.Stdin) }
	case c.o.From[0].Distro != nil:
		args := []string{transfer.CommandSend}
		if c.o.Resume {
			args = append(args, "--resume")
		}
		return c.inDistro(c.o.From[0].Distro, append(args, paths...))
	}
	return func(ctx context.Context, r io.Reader, w io.Writer) error {
		n, err := transfer.Send(ctx, w, r, transfer.SendOptions{Sources: paths, Resume: c.o.Resume, Note: c.s.events.Warn, Total: c.count.total})
		c.skip(n)
		return err
	}
}

func (c *copying) receiver() side {
	switch {
	case c.o.Stdout != nil:
		return func(_ context.Context, r io.Reader, _ io.Writer) error { return transfer.WriteFile(r, c.o.Stdout) }
	case c.o.To.Distro != nil:
		return c.inDistro(c.o.To.Distro, append([]string{transfer.CommandReceive, c.o.To.Path}, c.names()...))
	}
	return func(ctx context.Context, r io.Reader, w io.Writer) error {
		n, err := transfer.Receive(ctx, r, w, transfer.ReceiveOptions{Dest: c.o.To.Path, Names: c.names(), Note: c.s.events.Warn, Total: c.count.total})
		c.skip(n)
		return err
	}
}

// names are those that a distro may send; nil leaves that to the host.
func (c *copying) names() (names []string) {
	for _, p := range c.o.From {
		if p.Distro != nil {
			names = append(names, transfer.NameOf(p.Path))
		}
	}
	return names
}

// inDistro is a side that is in a distro.
func (c *copying) inDistro(d *machine.Distro, args []string) side {
	return func(ctx context.Context, r io.Reader, w io.Writer) error {
		reports, reportsW := io.Pipe()
		var skipped int
		var said error
		reading := make(chan struct{})
		go func() {
			defer close(reading)
			skipped, said = transfer.Reports(reports, c.s.events.Warn)
			io.Copy(io.Discard, reports)
		}()
		_, err := c.s.Exec(ctx, d, Command{Argv: append([]string{Tool}, args...), User: c.o.User, Stdin: r, Stdout: w, Stderr: reportsW})
		reportsW.Close()
		<-reading
		if err != nil {
			return noTool(d, err)
		}
		c.skip(skipped)
		return said
	}
}

// noTool says what it means that a distro does not have our program.
func noTool(d *machine.Distro, err error) error {
	if guest.ErrorCode(err) == guestv1.ErrorCode_ERROR_CODE_COMMAND_NOT_FOUND {
		return hint.New(fmt.Errorf("%s does not show lsub's program %s", d.Name, Tool), "something in it has unmounted that; 'lsub stop "+d.Name+"' and the next start bring it back")
	}
	return err
}

// explain says what a copy that failed leaves, and what to do.
func (c *copying) explain(ctx context.Context, err error) error {
	goOn := "the same command with --resume goes on where this one stopped"
	if c.o.Stdin != nil || c.o.Stdout != nil {
		goOn = ""
	}
	if ctx.Err() != nil {
		return withHint(&interruptedError{"interrupted", ctx.Err()}, goOn)
	}
	var remote *transfer.RemoteError
	switch {
	case errors.As(err, &remote) && remote.Full:
		return withHint(fmt.Errorf("copy: %w", err), "delete files in distros; then "+goOn)
	case transfer.IsDiskFull(err):
		return withHint(fmt.Errorf("copy: %w", err), "free some space; then "+goOn)
	}
	var own *guest.Error
	if errors.As(err, &own) {
		return err
	}
	return fmt.Errorf("copy: %w", err)
}

func withHint(err error, advice string) error {
	if advice == "" {
		return err
	}
	return hint.New(err, advice)
}
