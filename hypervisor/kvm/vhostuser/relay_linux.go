package vhostuser

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Relay stands between a front-end (QEMU) and a back-end in another process, which may die
// and be replaced without the front-end's knowledge. It passes messages, not the data: the
// back-end has the rings. It keeps what a new back-end has to be told.
type Relay struct {
	// Connect starts a back-end, and returns a connection to it. It is called again when the
	// back-end has died. An error is logged, and the call repeated after a while.
	Connect func(ctx context.Context) (*net.UnixConn, error)
	Name    string // for logs
	Logger  *slog.Logger

	front session // only its descriptors and its reader are used
	back  *net.UnixConn
	acks  bool // the front-end has taken REPLY_ACK
	kept  []kept
}

// kept is a message that a new back-end has to get.
type kept struct {
	request, index uint32
	raw            []byte
	fds            []int
}

// retryConnect is the longest pause between two tries to start a back-end.
const retryConnect = time.Second

// Serve relays until the front-end hangs up or ctx is done. It closes front.
func (r *Relay) Serve(ctx context.Context, front *net.UnixConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer front.Close()
	defer context.AfterFunc(ctx, func() { _ = front.SetDeadline(time.Unix(1, 0)) })()
	r.front.conn = front
	defer r.end()
	if r.restart(ctx) != nil { // ctx is done
		return nil
	}
	type incoming struct {
		raw []byte
		fds []int
		err error
	}
	// Each message is answered before the front-end sends the next one that needs the answer,
	// so one at a time is enough. The reader waits until a message has been relayed.
	messages, next := make(chan incoming), make(chan struct{})
	go func() {
		for {
			raw, err := r.front.receiveRaw()
			fds := r.front.fds
			r.front.fds = nil
			select {
			case messages <- incoming{raw, fds, err}:
			case <-ctx.Done():
				closeAll(fds)
				return
			}
			if err != nil {
				return
			}
			select {
			case <-next:
			case <-ctx.Done():
				return
			}
		}
	}()
	for {
		died := r.watch()
		select {
		case m := <-messages:
			r.unwatch(died)
			if m.err != nil {
				if errors.Is(m.err, io.EOF) || ctx.Err() != nil || errors.Is(m.err, unix.ECONNRESET) {
					return nil
				}
				return fmt.Errorf("%s: %w", r.Name, m.err)
			}
			if err := r.relay(ctx, m.raw, m.fds); err != nil {
				return err
			}
			select {
			case next <- struct{}{}:
			case <-ctx.Done(): // the reader has gone
				return nil
			}
		case <-died:
			r.Logger.Warn("a back-end has died; start another", "device", r.Name)
			if r.restart(ctx) != nil {
				return nil
			}
		case <-ctx.Done():
			r.unwatch(died)
			return nil
		}
	}
}

// watch returns what is closed when the back-end hangs up. It sends nothing by itself.
func (r *Relay) watch() chan struct{} {
	died, back := make(chan struct{}), r.back
	go func() {
		defer close(died)
		rc, err := back.SyscallConn()
		if err != nil {
			return
		}
		_ = rc.Read(func(fd uintptr) bool {
			var b [1]byte
			_, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			return err != unix.EAGAIN
		})
	}()
	return died
}

// unwatch ends a watch before its end.
func (r *Relay) unwatch(died chan struct{}) {
	_ = r.back.SetReadDeadline(time.Unix(1, 0))
	<-died
	_ = r.back.SetReadDeadline(time.Time{})
}

// relay passes one message to the back-end and its answer to the front-end. If the back-end
// dies meanwhile, the next one gets the message.
func (r *Relay) relay(ctx context.Context, raw []byte, fds []int) error {
	var h [msgHeaderLen]byte
	copy(h[:], raw)
	request, flags, _, err := decodeMsgHeader(&h)
	if err != nil {
		closeAll(fds)
		return err
	}
	asks := slices.Contains([]uint32{msgGetFeatures, msgGetProtocolFeatures, msgGetQueueNum, msgGetMaxMemSlots, msgGetConfig, msgGetVringBase}, request)
	asks = asks || flags&msgNeedReply != 0 && (r.acks || request == msgSetProtocolFeatures && offersAcks(raw[msgHeaderLen:]))
	for {
		answer, err := r.ask(raw, fds, asks)
		if err == nil {
			r.keep(request, raw, fds)
			if answer != nil {
				_, err = r.front.conn.Write(answer)
			}
			return err
		}
		if err := r.restart(ctx); err != nil {
			closeAll(fds)
			return err
		}
	}
}

func offersAcks(features []byte) bool {
	return len(features) == 8 && binary.LittleEndian.Uint64(features)&protoReplyAck != 0
}

// ask sends a message to the back-end, and reads its answer if there is to be one.
func (r *Relay) ask(raw []byte, fds []int, answered bool) ([]byte, error) {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := r.back.WriteMsgUnix(raw, oob, nil); err != nil || !answered {
		return nil, err
	}
	var h [msgHeaderLen]byte
	if _, err := io.ReadFull(r.back, h[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h[8:])
	if n > maxMsgLen {
		return nil, errMessage
	}
	answer := append(h[:], make([]byte, n)...)
	_, err := io.ReadFull(r.back, answer[msgHeaderLen:])
	return answer, err
}

// replayOrder is the order in which a new back-end gets what was kept. Addresses come after
// the memory that they are in, and kicks last: they start a ring.
var replayOrder = []uint32{msgSetProtocolFeatures, msgSetOwner, msgSetFeatures, msgSetMemTable, msgAddMemReg,
	msgSetVringNum, msgSetVringBase, msgSetVringAddr, msgSetVringErr, msgSetVringCall, msgSetVringEnable, msgSetVringKick}

// keep takes over the descriptors of a message that was relayed.
func (r *Relay) keep(request uint32, raw []byte, fds []int) {
	k := kept{request: request, raw: raw, fds: fds}
	payload := raw[msgHeaderLen:]
	if len(payload) >= 4 && request >= msgSetVringNum && request <= msgSetVringErr || request == msgSetVringEnable {
		k.index = binary.LittleEndian.Uint32(payload) & 0xff
	}
	switch request {
	case msgSetProtocolFeatures:
		r.acks = offersAcks(payload)
	case msgGetVringBase: // the ring is stopped
		r.drop(func(o *kept) bool {
			return o.index == k.index && (o.request == msgSetVringKick || o.request == msgSetVringBase)
		})
	case msgResetOwner, msgResetDevice:
		r.drop(func(o *kept) bool {
			return o.request >= msgSetVringNum && o.request <= msgSetVringErr || o.request == msgSetVringEnable
		})
	case msgRemMemReg:
		r.drop(func(o *kept) bool {
			return o.request == msgAddMemReg && slices.Equal(o.raw[msgHeaderLen+8:][:24], payload[8:][:24])
		})
	case msgSetMemTable:
		r.drop(func(o *kept) bool { return o.request == msgAddMemReg })
	}
	if !slices.Contains(replayOrder, request) {
		closeAll(fds)
		return
	}
	if request != msgAddMemReg {
		r.drop(func(o *kept) bool { return o.request == request && o.index == k.index })
	}
	r.kept = append(r.kept, k)
}

func (r *Relay) drop(match func(*kept) bool) {
	r.kept = slices.DeleteFunc(r.kept, func(k kept) bool {
		if !match(&k) {
			return false
		}
		closeAll(k.fds)
		return true
	})
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// restart connects to a new back-end and tells it all that was kept. It fails only when ctx
// is done.
func (r *Relay) restart(ctx context.Context) error {
	for pause := retryConnect / 64; ; pause = min(2*pause, retryConnect) {
		if r.back != nil {
			r.back.Close()
			r.back = nil
		}
		back, err := r.Connect(ctx)
		if err == nil {
			r.back = back
			if err = r.replay(); err == nil {
				return nil
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		r.Logger.Warn("a back-end does not start", "device", r.Name, "err", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *Relay) replay() error {
	acks := false
	for _, request := range replayOrder {
		for _, k := range r.kept {
			if k.request != request {
				continue
			}
			raw := slices.Clone(k.raw)
			flags := binary.LittleEndian.Uint32(raw[4:]) &^ msgNeedReply
			if acks {
				flags |= msgNeedReply
			}
			binary.LittleEndian.PutUint32(raw[4:], flags)
			answer, err := r.ask(raw, k.fds, acks)
			if err != nil {
				return err
			}
			if acks && (len(answer) < msgHeaderLen+8 || binary.LittleEndian.Uint64(answer[msgHeaderLen:]) != 0) {
				return fmt.Errorf("request %d was refused", request)
			}
			acks = acks || request == msgSetProtocolFeatures && r.acks
		}
	}
	return nil
}

// end releases what was kept.
func (r *Relay) end() {
	if r.back != nil {
		r.back.Close()
	}
	r.drop(func(*kept) bool { return true })
}
