package main

import "github.com/lsub/lsub/guest"

// watchSize returns the size of our terminal. Windows tells changes of it only
// to who reads console events in place of bytes, so there are none.
func (a *app) watchSize() (<-chan guest.Size, guest.Size, func()) {
	return nil, a.terminalSize(), func() {}
}
