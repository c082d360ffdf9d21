// Package ctxio has readers that stop when a context ends.
package ctxio

import (
	"context"
	"io"
)

// NewReader returns a reader of r that fails with the cause of ctx once that has ended. It
// cannot interrupt a Read of r in progress.
func NewReader(ctx context.Context, r io.Reader) io.Reader { return reader{ctx, r} }

type reader struct {
	ctx context.Context
	r   io.Reader
}

func (c reader) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
