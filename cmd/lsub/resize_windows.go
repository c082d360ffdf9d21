package main

import (
	"time"

	"github.com/lsub/lsub/guest"
)

// sizeInterval is how often the size of our terminal is looked at. Windows tells of changes only
// to programs that read console events in place of bytes.
const sizeInterval = 250 * time.Millisecond

// watchSize returns the new sizes of our terminal, until stop is called.
func watchSize(now func() guest.Size) (sizes <-chan guest.Size, stop func()) {
	resized := make(chan guest.Size)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(sizeInterval)
		defer ticker.Stop()
		for last := now(); ; {
			select {
			case <-done:
				return
			case <-ticker.C:
			}
			size := now()
			if size == last {
				continue
			}
			last = size
			select {
			case <-done:
				return
			case resized <- size:
			}
		}
	}()
	return resized, func() {
		close(done)
		<-ended
	}
}
