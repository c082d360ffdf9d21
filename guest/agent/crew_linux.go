package agent

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/rootfs/pax"
)

// A crew makes the files, symbolic links and devices of an archive on all CPUs
// while the archive is read on: what a file costs the kernel is many times what its
// bytes cost. They are handed over by the batch, because waking a worker for each
// would cost as much again.
//
// One goroutine calls its methods: the archive's reader. The order of the archive
// counts where two entries touch the same name; the reader asks for that (busy), and
// waits until all is made (settle) before it goes on.
type crew struct {
	work chan *batch // to be made
	free chan *batch // made
	wg   sync.WaitGroup

	filling *batch            // by the reader; nil for none
	pending map[string]*batch // clean names of what may not be made yet

	mu     sync.Mutex
	failed error // the first error
}

const (
	batchBytes = 512 << 10
	batchFiles = 64
	// wholeFile is up to how many bytes a file is made by one worker at one go.
	wholeFile = 128 << 10
)

// batch is work for one worker.
type batch struct {
	names []string // clean, of its leaves
	jobs  []job
	data  []byte // of all jobs, one behind the other
}

// job makes a leaf, or writes a part of a file.
type job struct {
	leaf leaf
	part *openFile // nil for a leaf
	at   int64     // of the part, in its file
	size int       // of the bytes in the batch
}

// openFile is a file that is written in parts. Who writes the last one finishes it.
type openFile struct {
	leaf leaf
	fd   int
	left atomic.Int32 // parts, and one for the reader
}

func newCrew() *crew {
	workers := runtime.GOMAXPROCS(0)
	// A batch for each worker, one that waits for each, and one that is filled.
	n := 2*workers + 1
	c := &crew{work: make(chan *batch, n), free: make(chan *batch, n), pending: map[string]*batch{}}
	for range n {
		c.free <- &batch{}
	}
	for range workers {
		c.wg.Go(func() {
			for b := range c.work {
				c.do(b)
				c.free <- b
			}
		})
	}
	return c
}

// do does the work of a batch. After an error nothing more is made.
func (c *crew) do(b *batch) {
	data := b.data
	for i := range b.jobs {
		j := &b.jobs[i]
		bytes := data[:j.size]
		data = data[j.size:]
		l := &j.leaf
		if j.part != nil {
			l = &j.part.leaf
		}
		var err error
		switch {
		case c.err() != nil:
		case j.part != nil:
			err = writeAt(j.part.fd, bytes, j.at)
		default:
			err = l.make(func(fd int) error { return writeAt(fd, bytes, 0) })
		}
		if err != nil {
			c.fail(fmt.Errorf("unpack %s: %w", l.h.Name, err))
		}
		if j.part != nil {
			c.done(j.part)
		} else {
			l.dir.release()
		}
	}
}

// done takes one off the parts of a file that are left.
func (c *crew) done(f *openFile) {
	if f.left.Add(-1) > 0 {
		return
	}
	if c.err() == nil {
		if err := f.leaf.finishFile(f.fd); err != nil {
			c.fail(fmt.Errorf("unpack %s: %w", f.leaf.h.Name, err))
		}
		// It goes to the disk now, from every CPU, and not at the end from one.
		unix.SyncFileRange(f.fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	unix.Close(f.fd)
}

// err returns the first error.
func (c *crew) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.failed
}

func (c *crew) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil {
		c.failed = err
	}
}

// busy tells whether a name stands for something that may not be made yet.
func (c *crew) busy(name string) bool {
	_, ok := c.pending[name]
	return ok
}

// add takes on a leaf, of which name is the clean name; the size bytes of a file
// are read from in.
func (c *crew) add(name string, l leaf, size int64, in io.Reader) error {
	b, err := c.append(job{leaf: l, size: int(size)}, in)
	if err != nil {
		return err
	}
	l.dir.hold()
	b.names = append(b.names, name)
	c.pending[name] = b
	c.flushFull()
	return nil
}

// addParts takes on a file that is long or has holes. The file is there when it returns,
// so that its name can be dealt with; its content need not be.
func (c *crew) addParts(l leaf, in *pax.Reader) error {
	fd, err := l.createAnew()
	if err != nil {
		return err
	}
	f := &openFile{leaf: l, fd: fd}
	f.left.Store(1)
	defer c.done(f)
	end := int64(0)
	for _, e := range in.Extents() {
		for end = e.Offset; end < e.Offset+e.Size; {
			n := min(e.Offset+e.Size-end, wholeFile)
			if _, err := c.append(job{part: f, at: end, size: int(n)}, in); err != nil {
				return err
			}
			f.left.Add(1)
			c.flushFull()
			end += n
		}
	}
	if end < l.h.Size {
		return unix.Ftruncate(fd, l.h.Size) // it ends in a hole
	}
	return nil
}

// append adds a job to the batch that is filled, with its bytes from in.
func (c *crew) append(j job, in io.Reader) (*batch, error) {
	if c.filling == nil {
		c.filling = c.take()
	}
	b := c.filling
	at := len(b.data)
	b.data = slices.Grow(b.data, j.size)[:at+j.size]
	if _, err := io.ReadFull(in, b.data[at:]); err != nil {
		b.data = b.data[:at]
		return nil, archiveError(err)
	}
	b.jobs = append(b.jobs, j)
	return b, nil
}

// flushFull hands over a batch that has no room for one more job.
func (c *crew) flushFull() {
	if b := c.filling; len(b.jobs) == batchFiles || len(b.data) > batchBytes-wholeFile {
		c.flush()
	}
}

// take waits for an empty batch.
func (c *crew) take() *batch {
	b := <-c.free
	for _, name := range b.names {
		delete(c.pending, name)
	}
	clear(b.names)
	clear(b.jobs)
	b.names, b.jobs, b.data = b.names[:0], b.jobs[:0], b.data[:0]
	return b
}

// flush hands over what was added.
func (c *crew) flush() {
	if c.filling != nil {
		c.work <- c.filling
		c.filling = nil
	}
}

// settle returns when all that was added is made.
func (c *crew) settle() {
	c.flush()
	all := make([]*batch, cap(c.free))
	for i := range all {
		all[i] = c.take()
	}
	for _, b := range all {
		c.free <- b
	}
}

// end waits until all is made and the workers have ended, and returns the first
// error.
func (c *crew) end() error {
	c.flush()
	close(c.work)
	c.wg.Wait()
	return c.err()
}

// writeAt writes all of p.
func writeAt(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}
