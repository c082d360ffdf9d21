package kvm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/digitalocean/go-qemu/qmp"

	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/hypervisor"
	"github.com/lsub/lsub/hypervisor/kvm/vhostuser"
)

var _ hypervisor.FileSystems = (*vm)(nil)

// fileSystems are the VM's file system devices.
type fileSystems struct {
	vm     *vm
	mu     sync.Mutex
	used   map[string]int           // devices by bus
	gone   map[string]chan struct{} // closed when the guest has let go of a device
	closed bool
	wg     sync.WaitGroup // of relays
	ends   map[string]context.CancelFunc
}

func (f *fileSystems) init(v *vm) {
	f.vm, f.used = v, map[string]int{}
	f.gone, f.ends = map[string]chan struct{}{}, map[string]context.CancelFunc{}
}

// close ends all relays. QEMU is gone.
func (f *fileSystems) close() {
	f.mu.Lock()
	f.closed = true
	for _, end := range f.ends {
		end()
	}
	f.mu.Unlock()
	f.wg.Wait()
}

// onEvent hears which devices the guest has let go of.
func (f *fileSystems) onEvent(e qmp.Event) {
	if e.Event != "DEVICE_DELETED" {
		return
	}
	id, _ := e.Data["device"].(string)
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.gone[id]; c != nil {
		close(c)
		delete(f.gone, id)
	}
}

// take chooses a bus with room.
func (f *fileSystems) take() (bus string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	buses, room := sharePorts(runtime.GOARCH)
	for _, bus := range buses {
		if f.used[bus] < room {
			f.used[bus]++
			return bus, nil
		}
	}
	return "", hint.New(fmt.Errorf("the VM has no room for more than %d shared folders", room*len(buses)), "share a folder that contains others")
}

func (f *fileSystems) giveBack(bus string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.used[bus]--
}

// AttachFS adds a device over vhost-user. QEMU reaches it by a socket with a path, which is
// removed when it has connected.
func (v *vm) AttachFS(ctx context.Context, tag string, queues int, connect func(context.Context) (*net.UnixConn, error)) (detach func(context.Context) error, err error) {
	f := &v.fs
	bus, err := f.take()
	if err != nil {
		return nil, err
	}
	relay, err := v.startRelay(tag, connect)
	if err != nil {
		f.giveBack(bus)
		return nil, err
	}
	id := "fs-" + tag
	type object map[string]any
	address := object{"type": "unix", "data": object{"path": relay.path}}
	err = v.mon.runWith(ctx, "chardev-add", object{"id": id, "backend": object{"type": "socket", "data": object{"addr": address, "server": false}}}, nil)
	if err == nil {
		err = v.mon.runWith(ctx, "device_add", object{
			"driver": "vhost-user-fs-pci", "id": id, "chardev": id, "tag": tag, "bus": bus,
			// As many entries as a request of 1 MiB needs, and more.
			"num-request-queues": queues, "queue-size": 1024,
		}, nil)
		if err != nil {
			_ = v.mon.runWith(context.WithoutCancel(ctx), "chardev-remove", object{"id": id}, nil)
		}
	}
	if err != nil {
		relay.stop()
		f.giveBack(bus)
		return nil, fmt.Errorf("add the file system device %s: %w", tag, err)
	}
	return func(ctx context.Context) error {
		if err := v.unplug(ctx, id); err != nil {
			return fmt.Errorf("remove the file system device %s: %w", tag, err)
		}
		relay.stop()
		f.giveBack(bus)
		return nil
	}, nil
}

// unplug takes a device from the guest, and waits until it is gone.
func (v *vm) unplug(ctx context.Context, id string) error {
	gone := make(chan struct{})
	v.fs.mu.Lock()
	v.fs.gone[id] = gone
	v.fs.mu.Unlock()
	if err := v.mon.runWith(ctx, "device_del", map[string]any{"id": id}, nil); err != nil {
		return err
	}
	select {
	case <-gone:
	case <-v.alive.Done():
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return v.mon.runWith(ctx, "chardev-remove", map[string]any{"id": id}, nil)
}

// relayed is a relay between QEMU and a back-end.
type relayed struct {
	path string
	stop func() // ends it, and waits for its end
}

// startRelay listens for QEMU.
func (v *vm) startRelay(tag string, connect func(context.Context) (*net.UnixConn, error)) (*relayed, error) {
	path := filepath.Join(v.cfg.Dir, fmt.Sprintf("fs-%s-%d.sock", tag, os.Getpid()))
	os.Remove(path) // left by a killed process with the same number
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("no socket for a file system device: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	f := &v.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		l.Close()
		cancel()
		return nil, fmt.Errorf("the VM %s is off: %w", v.cfg.Name, net.ErrClosed)
	}
	f.ends[tag] = cancel
	f.wg.Go(func() {
		defer close(done)
		defer cancel()
		stop := context.AfterFunc(ctx, func() { l.Close() })
		conn, err := l.AcceptUnix()
		stop()
		l.Close() // removes the path
		if err == nil {
			r := &vhostuser.Relay{Connect: connect, Name: "fs " + tag, Logger: v.log}
			err = r.Serve(ctx, conn)
		}
		if err != nil && !errors.Is(err, net.ErrClosed) {
			v.log.Error("a file system device has failed", "tag", tag, "err", err)
		}
	})
	return &relayed{path, func() {
		cancel()
		<-done
		f.mu.Lock()
		delete(f.ends, tag)
		f.mu.Unlock()
	}}, nil
}
