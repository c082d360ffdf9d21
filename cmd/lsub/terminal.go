package main

import (
	"io"
	"os"
	"sync/atomic"

	"golang.org/x/term"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/guest"
)

// lent is what a command gets of our terminal. A nil one is nothing.
type lent struct {
	own   *ownTerminal // the terminal beside pipes; nil where all streams are it
	pipes guest.Pipes
}

// lend decides what a command gets of our terminal that is not told: all of it where the
// streams are one; where some are pipes, our controlling terminal beside them. The caller
// closes it.
func (a *app) lend() *lent {
	streams := []any{a.stdin, a.stdout, a.stderr}
	terminals := 0
	for _, s := range streams {
		if f, ok := s.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			terminals++
		}
	}
	if terminals == len(streams) {
		return &lent{}
	}
	own, err := openOwnTerminal(a.status)
	if err != nil { // we have none
		if a.onTerminal() {
			return &lent{}
		}
		return nil
	}
	return &lent{own, guest.Pipes{Stdin: !own.is(a.stdin), Stdout: !own.is(a.stdout), Stderr: !own.is(a.stderr)}}
}

func (l *lent) close() {
	if l != nil && l.own != nil {
		l.own.close()
	}
}

// give has a command use the terminal. broken tells afterwards whether one of our own pipes
// broke.
func (l *lent) give(a *app, cmd *distro.Command) (stop func(), broken func() bool) {
	broken = func() bool { return false }
	if l == nil {
		return func() {}, broken
	}
	cmd.Env = append(terminalEnv(), cmd.Env...)
	size := a.terminalSize
	if l.own != nil {
		size = func() guest.Size { return l.own.size(a.terminalSize) }
	}
	resize, stopSizes := watchSize(size)
	cmd.Terminal = &distro.Terminal{Size: size, Resize: resize}
	if l.own == nil {
		return stopSizes, broken
	}
	cmd.Terminal.Own, cmd.Terminal.Pipes = l.own, l.pipes
	if !l.pipes.Stdin {
		cmd.Stdin = nil // keys come by the terminal
	}
	// A pipe that breaks would end us at once, and leave the terminal as the command has it.
	restoreSIGPIPE := catchSIGPIPE()
	pipes := &pipeWatch{}
	cmd.Stdout, cmd.Stderr = pipes.writer(cmd.Stdout), pipes.writer(cmd.Stderr)
	return func() {
		stopSizes()
		restoreSIGPIPE()
	}, pipes.broken.Load
}

// pipeWatch notes whether a write to a pipe has failed.
type pipeWatch struct{ broken atomic.Bool }

func (p *pipeWatch) writer(w io.Writer) io.Writer { return watchedPipe{w, &p.broken} }

type watchedPipe struct {
	io.Writer
	broken *atomic.Bool
}

func (w watchedPipe) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if isBrokenPipe(err) {
		w.broken.Store(true)
	}
	return n, err
}
