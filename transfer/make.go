package transfer

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lsub/lsub/rootfs/pax"
)

// dirHandle is an open directory that several workers make files in. The last one who uses it
// closes it.
type dirHandle struct {
	root  *os.Root
	users atomic.Int32

	once    sync.Once
	dir     *os.File
	openErr error
}

func newDirHandle(root *os.Root) *dirHandle {
	d := &dirHandle{root: root}
	d.users.Store(1)
	return d
}

func (d *dirHandle) ref() { d.users.Add(1) }

func (d *dirHandle) unref() {
	if d.users.Add(-1) > 0 {
		return
	}
	d.root.Close()
	if d.dir != nil {
		d.dir.Close()
	}
}

// fd returns the directory's descriptor, which is good until unref.
func (d *dirHandle) fd() (int, error) {
	d.once.Do(func() { d.dir, d.openErr = d.root.Open(".") })
	if d.openErr != nil {
		return -1, d.openErr
	}
	return int(d.dir.Fd()), nil
}

// job is a file to make.
type job struct {
	dir  *dirHandle
	name string // for messages
	base string // in dir
	part string // its name until it is whole
	mode fs.FileMode
	mod  time.Time
	size int64
	data []byte // of a small one
	// unseen says that nobody sees the directory before the copy is whole.
	unseen bool
}

// keepPart is how long a part of a file has to be to be worth keeping.
const keepPart = 1 << 20

// make makes a file under the name of its part, which write fills, and gives it its name when
// it is whole.
func (j *job) make(write func(f *os.File) error) error {
	flags := os.O_CREATE | os.O_WRONLY
	if j.data != nil {
		flags |= os.O_TRUNC
	}
	f, err := j.dir.root.OpenFile(j.part, flags, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil && runtime.GOOS != "windows" {
		err = f.Chmod(j.mode)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = j.dir.root.Chtimes(j.part, j.mod, j.mod)
	}
	if err == nil {
		err = j.dir.root.Rename(j.part, j.base)
	}
	if err != nil {
		if info, serr := j.dir.root.Lstat(j.part); serr == nil && info.Size() < keepPart {
			j.dir.root.Remove(j.part)
		}
	}
	return err
}

// long makes a file of the bytes of the archive's entry. Parts of it may be here already,
// which the archive does not have.
func (j *job) long(ctx context.Context, in *pax.Reader) error {
	return j.make(func(f *os.File) error {
		buf := make([]byte, bufferSize)
		for _, e := range in.Extents() {
			for at := e.Offset; at < e.Offset+e.Size; {
				if err := ctx.Err(); err != nil {
					return err
				}
				n, err := io.ReadFull(in, buf[:min(e.Offset+e.Size-at, int64(len(buf)))])
				if n > 0 {
					if _, werr := f.WriteAt(buf[:n], at); werr != nil {
						return werr
					}
				}
				if err != nil {
					return streamFailed{err}
				}
				at += int64(n)
			}
		}
		return f.Truncate(j.size)
	})
}

// streamFailed is a failure of the stream, and not of a file.
type streamFailed struct{ error }

func (e streamFailed) Unwrap() error { return e.error }

// isFatal tells whether an error ends the copy. Others are one file's.
func isFatal(err error) bool {
	var stream streamFailed
	switch {
	case errors.As(err, &stream), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, errDiskFull), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EROFS), errors.Is(err, syscall.EIO):
		return true
	}
	return false
}

// replace puts what create makes in the place of name.
func replace(root *os.Root, name string, create func(tmp string) error) error {
	tmp := filepath.FromSlash(path.Join(path.Dir(filepath.ToSlash(name)), partPrefix+rand.Text()))
	if err := create(tmp); err != nil {
		return err
	}
	err := root.Rename(tmp, filepath.FromSlash(name))
	if err != nil {
		root.Remove(tmp)
	}
	// Renaming one name of a file to another of the same file does nothing.
	if _, serr := root.Lstat(tmp); serr == nil {
		root.Remove(tmp)
	}
	return err
}

// receiveRaw makes a file of all that r has.
func receiveRaw(root *os.Root, name string, r io.Reader) error {
	tmp := partPrefix + rand.Text()
	mode := fs.FileMode(0o666)
	if info, err := root.Stat(name); err == nil {
		mode = info.Mode().Perm()
	}
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{r}, make([]byte, bufferSize))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp)
	}
	return err
}

// pool makes small files with a worker per CPU while the archive is read on. Workers get files
// by the batch. One goroutine calls its methods.
type pool struct {
	work    chan *batch
	free    chan *batch
	workers sync.WaitGroup
	alone   bool // the reader does the work itself
	filling *batch
	skip    func(name string, err error)

	mu     sync.Mutex
	failed error
}

type batch struct {
	jobs []*job
	data []byte
}

const (
	batchFiles = 64
	batchBytes = 512 << 10
)

func newPool(skip func(string, error)) *pool {
	n := runtime.GOMAXPROCS(0)
	p := &pool{work: make(chan *batch, 2*n+1), free: make(chan *batch, 2*n+1), skip: skip, alone: n == 1}
	if p.alone {
		n = 0
	}
	for range cap(p.free) {
		p.free <- &batch{}
	}
	for range n {
		p.workers.Go(func() {
			for b := range p.work {
				p.make(b)
			}
		})
	}
	return p
}

// make makes the files of a batch.
func (p *pool) make(b *batch) {
	for _, j := range b.jobs {
		p.do(j)
	}
	p.free <- b
}

func (p *pool) do(j *job) {
	defer j.dir.unref()
	if p.err() != nil {
		return
	}
	err := j.small()
	switch {
	case err == nil:
	case isFatal(err):
		p.fail(err)
	default:
		p.skip(j.name, err)
	}
}

func (p *pool) err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *pool) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failed == nil {
		p.failed = err
	}
}

// add takes on a file whose bytes are read from in.
func (p *pool) add(j *job, in io.Reader) error {
	if p.filling == nil {
		p.filling = p.take()
	}
	b := p.filling
	at := len(b.data)
	b.data = slices.Grow(b.data, int(j.size))[:at+int(j.size)]
	j.data = b.data[at : at+int(j.size) : at+int(j.size)]
	if _, err := io.ReadFull(in, j.data); err != nil {
		return err
	}
	j.dir.ref()
	b.jobs = append(b.jobs, j)
	if len(b.jobs) == batchFiles || len(b.data) > batchBytes-smallFile {
		p.flush()
	}
	return nil
}

func (p *pool) flush() {
	if p.filling == nil {
		return
	}
	if p.alone {
		p.make(p.filling)
	} else {
		p.work <- p.filling
	}
	p.filling = nil
}

// take waits for a batch that is done.
func (p *pool) take() *batch {
	b := <-p.free
	clear(b.jobs)
	b.jobs, b.data = b.jobs[:0], b.data[:0]
	return b
}

// barrier returns when all that was added is made.
func (p *pool) barrier() error {
	p.flush()
	all := make([]*batch, cap(p.free))
	for i := range all {
		all[i] = p.take()
	}
	for _, b := range all {
		p.free <- b
	}
	return p.err()
}

// end waits until all is made, and returns the first error.
func (p *pool) end() error {
	p.flush()
	close(p.work)
	p.workers.Wait()
	return p.err()
}
