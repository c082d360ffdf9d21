//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/lsub/lsub/guest"
)

// watchSize returns the size of our terminal and its changes.
func (a *app) watchSize() (<-chan guest.Size, guest.Size, func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	sizes := make(chan guest.Size)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-done:
				return
			case <-changed:
			}
			select {
			case <-done:
				return
			case sizes <- a.terminalSize():
			}
		}
	}()
	return sizes, a.terminalSize(), func() {
		signal.Stop(changed)
		close(done)
		<-ended
	}
}
