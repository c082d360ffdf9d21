package relay

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/vsocksecret"
)

// Incoming is a stream that a loop has accepted. Who gets it calls one of its methods,
// once.
type Incoming struct {
	l  *Loop
	fd int
}

// Serve accepts streams on a listening socket. Those that do not say the secret first are
// closed. It calls first with each other stream and the bytes that it sends behind the secret,
// on the loop's thread: first must not block, nor keep the bytes.
func (l *Loop) Serve(listener int, secret vsocksecret.Secret, first func(in Incoming, said []byte)) error {
	if err := unix.SetNonblock(listener, true); err != nil {
		return err
	}
	e := &end{fd: listener}
	e.on = func() { l.accept(e, secret, first) }
	failed := make(chan error, 1)
	if !l.do(func() { failed <- l.watch(e) }) {
		return errClosed
	}
	select {
	case err := <-failed:
		if err != nil {
			return err
		}
	case <-l.ended:
	}
	<-l.ended
	return errClosed
}

// acceptPause is how long no stream is accepted where the VM has no file left.
const acceptPause = 100 * time.Millisecond

func (l *Loop) accept(listener *end, secret vsocksecret.Secret, first func(Incoming, []byte)) {
	for {
		fd, from, err := unix.Accept4(listener.fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			if vm, ok := from.(*unix.SockaddrVM); ok && vm.CID != unix.VMADDR_CID_HOST {
				unix.Close(fd) // a process in this VM, or a VM in it
				continue
			}
			l.await(fd, secret, first)
		case unix.EAGAIN:
			return
		case unix.EINTR, unix.ECONNABORTED, unix.ECONNRESET:
		default:
			l.log.Warn("streams are not accepted", "err", err)
			l.after(acceptPause, func() { l.accept(listener, secret, first) })
			return
		}
	}
}

// await waits for what a stream says first.
func (l *Loop) await(fd int, secret vsocksecret.Secret, first func(Incoming, []byte)) {
	e := &end{fd: fd}
	var known []byte // of the secret, while more of it has to come
	e.on = func() {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, l.buf) })
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n == 0 { // it was opened ahead, and not used
			l.close(e)
			return
		}
		said := l.buf[:n]
		if len(known) < len(secret) {
			part := min(len(secret)-len(known), n)
			known, said = append(known, said[:part]...), said[part:]
			if len(known) == len(secret) && !secret.Is(known) {
				l.close(e)
				return
			}
		}
		if len(said) > 0 {
			first(Incoming{l, fd}, said)
		}
	}
	if err := l.watch(e); err != nil {
		l.log.Warn("a stream cannot be served", "err", err)
		l.close(e)
	}
}

// Relay is [Loop.Relay] with the stream, on the loop's thread.
func (in Incoming) Relay(conn int, answer, head []byte, done func()) {
	lk := newLink(in.l, in.fd, conn, answer, bytes.Clone(head), done)
	lk.start()
	lk.stream.readable = true // more may have come than was read
}

// Conn takes the stream out of the loop. It is called on the loop's thread. The caller
// closes the stream.
func (in Incoming) Conn() *Conn {
	in.l.unwatch(in.fd)
	return newConn(in.fd, "stream")
}
