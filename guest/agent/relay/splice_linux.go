package relay

import (
	"io"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// bulk is from how many bytes at once on the next are moved within the
	// kernel: that spares a copy, and costs a second system call.
	bulk = 32 << 10
	// pipeSize is how many bytes a pipe takes.
	pipeSize = 256 << 10
)

// pipe is what bytes pass on their way from one socket to another within the
// kernel. It is empty between two moves.
type pipe struct{ r, w int }

// pipes keeps some for the next bulk.
var pipes struct {
	sync.Mutex
	free []*pipe
}

// keepPipes is how many pipes are kept.
const keepPipes = 16

// getPipe returns nil where there is none to be had.
func getPipe() *pipe {
	pipes.Lock()
	defer pipes.Unlock()
	if n := len(pipes.free); n > 0 {
		p := pipes.free[n-1]
		pipes.free = pipes.free[:n-1]
		return p
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, pipeSize) // a smaller one does, too
	return &pipe{fds[0], fds[1]}
}

// put keeps the pipe, which is empty.
func (p *pipe) put() {
	pipes.Lock()
	defer pipes.Unlock()
	if len(pipes.free) < keepPipes {
		pipes.free = append(pipes.free, p)
		return
	}
	p.close()
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

const spliceFlags = unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK

// splice moves what is there now, within the kernel. done is false where nothing
// is there, or the kernel cannot do it with these sockets; then nothing was moved.
func splice(dst, src *end) (done, writing bool, err error) {
	p := getPipe()
	if p == nil {
		return false, false, nil
	}
	var n int64
	var serr error
	if err := src.raw.Control(func(fd uintptr) {
		for {
			if n, serr = unix.Splice(int(fd), nil, p.w, nil, pipeSize, spliceFlags); serr != unix.EINTR {
				return
			}
		}
	}); err != nil {
		p.put()
		return true, false, err
	}
	switch {
	case serr == unix.EAGAIN, serr == unix.EINVAL:
		p.put()
		return false, false, nil
	case serr != nil:
		p.put()
		return true, false, serr
	case n == 0:
		p.put()
		return true, false, io.EOF
	}
	src.last = int(n)
	for n > 0 && err == nil {
		werr := dst.raw.Write(func(fd uintptr) bool {
			var m int64
			m, err = unix.Splice(p.r, nil, int(fd), nil, int(n), spliceFlags)
			n -= max(m, 0)
			if err == unix.EINTR {
				err = nil
			}
			return err != unix.EAGAIN
		})
		if werr != nil {
			err = werr
		}
	}
	if n > 0 {
		p.close() // what is in it belongs to nobody
	} else {
		p.put()
	}
	return true, true, err
}
