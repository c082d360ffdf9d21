// Package hint lets an error carry advice: what the user can do about it.
//
//	return hint.New(err, "install it with 'apt install qemu-system-x86'")
//
// The advice is no part of the error's text. cmd/lsub prints it on a line of
// its own, and the guest protocol carries it across.
package hint

import "errors"

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// New returns err with advice attached, one sentence in lower case without a
// full stop. It returns nil when err is nil.
func New(err error, advice string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, advice}
}

// Of returns the outermost advice that err carries, or "".
func Of(err error) string {
	var h *hinted
	if errors.As(err, &h) {
		return h.hint
	}
	return ""
}
