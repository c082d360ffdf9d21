//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/lsub/lsub/guest"
)

// watchSize returns the new sizes of our terminal, as size tells them, until stop is called.
func watchSize(size func() guest.Size) (sizes <-chan guest.Size, stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	resized := make(chan guest.Size)
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
			case resized <- size():
			}
		}
	}()
	return resized, func() {
		signal.Stop(changed)
		close(done)
		<-ended
	}
}
