package archive

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

// An extractPool makes the files, symbolic links and devices of an archive with a worker
// per CPU, while the archive is read on: making a file takes the kernel many times as
// long as copying its bytes. Workers get entries by the batch, because waking one for
// each entry would take as long again.
//
// One goroutine calls its methods: the archive's reader. The order of the archive
// counts where two entries touch the same name; the reader asks for that (busy), and
// waits until all is made (barrier) before it goes on.
type extractPool struct {
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
	names []string // clean, of its entries
	jobs  []job
	data  []byte // of all jobs, one behind the other
}

// job makes a file entry, or writes a part of a file.
type job struct {
	entry fileEntry
	part  *openFile // nil for a file entry
	at    int64     // of the part, in its file
	size  int       // of the bytes in the batch
}

// openFile is a file that is written in parts. Who writes the last one finishes it.
type openFile struct {
	entry fileEntry
	fd    int
	left  atomic.Int32 // parts, and one for the reader
}

func newExtractPool() *extractPool {
	workers := runtime.GOMAXPROCS(0)
	// A batch for each worker, one that waits for each, and one that is filled.
	n := 2*workers + 1
	p := &extractPool{work: make(chan *batch, n), free: make(chan *batch, n), pending: map[string]*batch{}}
	for range n {
		p.free <- &batch{}
	}
	for range workers {
		p.wg.Go(func() {
			for b := range p.work {
				p.do(b)
				p.free <- b
			}
		})
	}
	return p
}

// do does the work of a batch. After an error nothing more is made.
func (p *extractPool) do(b *batch) {
	data := b.data
	for i := range b.jobs {
		j := &b.jobs[i]
		bytes := data[:j.size]
		data = data[j.size:]
		l := &j.entry
		if j.part != nil {
			l = &j.part.entry
		}
		var err error
		switch {
		case p.err() != nil:
		case j.part != nil:
			err = writeAt(j.part.fd, bytes, j.at)
		default:
			err = l.make(func(fd int) error { return writeAt(fd, bytes, 0) })
		}
		if err != nil {
			p.fail(fmt.Errorf("unpack %s: %w", l.h.Name, err))
		}
		if j.part != nil {
			p.done(j.part)
		} else {
			l.dir.unref()
		}
	}
}

// done takes one off the parts of a file that are left.
func (p *extractPool) done(f *openFile) {
	if f.left.Add(-1) > 0 {
		return
	}
	if p.err() == nil {
		if err := f.entry.finishFile(f.fd); err != nil {
			p.fail(fmt.Errorf("unpack %s: %w", f.entry.h.Name, err))
		}
		// It goes to the disk now, from every CPU, and not at the end from one.
		unix.SyncFileRange(f.fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	unix.Close(f.fd)
}

// err returns the first error.
func (p *extractPool) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *extractPool) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// busy tells whether a name stands for something that may not be made yet.
func (p *extractPool) busy(name string) bool {
	_, ok := p.pending[name]
	return ok
}

// add takes on a file entry, of which name is the clean name; the size bytes of a file
// are read from in.
func (p *extractPool) add(name string, l fileEntry, size int64, in io.Reader) error {
	b, err := p.append(job{entry: l, size: int(size)}, in)
	if err != nil {
		return err
	}
	l.dir.ref()
	b.names = append(b.names, name)
	p.pending[name] = b
	p.flushFull()
	return nil
}

// addParts takes on a file that is long or has holes. The file is there when it returns,
// so that its name can be dealt with; its content need not be.
func (p *extractPool) addParts(l fileEntry, in *pax.Reader) error {
	fd, err := l.createAnew()
	if err != nil {
		return err
	}
	f := &openFile{entry: l, fd: fd}
	f.left.Store(1)
	defer p.done(f)
	end := int64(0)
	for _, e := range in.Extents() {
		for end = e.Offset; end < e.Offset+e.Size; {
			n := min(e.Offset+e.Size-end, wholeFile)
			if _, err := p.append(job{part: f, at: end, size: int(n)}, in); err != nil {
				return err
			}
			f.left.Add(1)
			p.flushFull()
			end += n
		}
	}
	if end < l.h.Size {
		return unix.Ftruncate(fd, l.h.Size) // it ends in a hole
	}
	return nil
}

// append adds a job to the batch that is filled, with its bytes from in.
func (p *extractPool) append(j job, in io.Reader) (*batch, error) {
	if p.filling == nil {
		p.filling = p.take()
	}
	b := p.filling
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
func (p *extractPool) flushFull() {
	if b := p.filling; len(b.jobs) == batchFiles || len(b.data) > batchBytes-wholeFile {
		p.flush()
	}
}

// take waits for an empty batch.
func (p *extractPool) take() *batch {
	b := <-p.free
	for _, name := range b.names {
		delete(p.pending, name)
	}
	clear(b.names)
	clear(b.jobs)
	b.names, b.jobs, b.data = b.names[:0], b.jobs[:0], b.data[:0]
	return b
}

// flush hands over what was added.
func (p *extractPool) flush() {
	if p.filling != nil {
		p.work <- p.filling
		p.filling = nil
	}
}

// barrier returns when all that was added is made.
func (p *extractPool) barrier() {
	p.flush()
	all := make([]*batch, cap(p.free))
	for i := range all {
		all[i] = p.take()
	}
	for _, b := range all {
		p.free <- b
	}
}

// end waits until all is made and the workers have ended, and returns the first
// error.
func (p *extractPool) end() error {
	p.flush()
	close(p.work)
	p.wg.Wait()
	return p.err()
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
