package ttywait

import "testing"

func TestDemand(t *testing.T) {
	w := waiter{1, 2}
	sleeps := true
	polls := func(got waiter) bool { return got == w && sleeps }
	var d demand
	look := func(what string, reads, plain, changed, wanted bool) {
		t.Helper()
		if got := d.looked(reads, plain, polls); got != changed || d.wanted != wanted {
			t.Errorf("%s: changed %v, wanted %v; want %v, %v", what, got, d.wanted, changed, wanted)
		}
	}
	look("nobody", false, true, false, false)
	if !d.begun(w) || d.begun(waiter{3, 4}) || !d.wanted {
		t.Error("the first wait is the one that changes something")
	}
	look("it polls", false, true, false, true)
	look("it polls on", false, true, false, true)
	sleeps = false
	look("away for a moment", false, true, false, true)
	d.begun(w)
	look("away again", false, true, false, true)
	look("away for long", false, true, true, false)
	sleeps = true
	look("one that began before is forgotten", false, true, false, false)

	d.begun(w)
	sleeps = false
	look("in another mode", false, false, false, true)
	look("in another mode for long", false, false, false, true)
	look("restored", false, true, false, true)
	look("a read", true, true, false, true)
	look("read", false, true, false, true)
	look("done", false, true, true, false)

	look("a read that only a look has found", true, true, true, true)
}
