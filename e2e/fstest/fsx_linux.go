package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// maxSize bounds the file of randomOps.
const maxSize = 256 << 10

// fsx is a file, and what should be in it.
type fsx struct {
	r    *rand.Rand
	name string
	fd   int
	want []byte
}

// randomOps does random operations on a file through all ways to it, and compares what is read
// with a model, until the number of them or the time is reached, whichever is given.
func randomOps(dir string, seed int64, ops int, d time.Duration) (err error) {
	f := &fsx{r: rand.New(rand.NewPCG(uint64(seed), 0)), name: filepath.Join(dir, "fsx"), fd: -1}
	if err := f.reopen(unix.O_CREAT | unix.O_TRUNC); err != nil {
		return err
	}
	defer func() { unix.Close(f.fd) }()
	var last []string // operations
	for i, begin := 0, time.Now(); (ops == 0 || i < ops) && (d == 0 || time.Since(begin) < d); i++ {
		what, err := f.step()
		last = append(last, what)
		if len(last) > 12 {
			last = last[1:]
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w; the last ones: %q", i, err, last)
		}
	}
	return os.Remove(f.name)
}

func (f *fsx) reopen(flags int) error {
	if f.fd >= 0 {
		if err := unix.Close(f.fd); err != nil {
			return err
		}
	}
	var err error
	f.fd, err = unix.Open(f.name, unix.O_RDWR|unix.O_CLOEXEC|flags, 0o644)
	return err
}

// part returns a random range, which may end behind max.
func (f *fsx) part(max int) (at, n int) {
	at, n = f.r.IntN(max), 1+f.r.IntN(64<<10)
	if f.r.IntN(3) == 0 { // borders of pages
		at, n = at&^4095, (n+4095)&^4095
	}
	return at, n
}

// put changes the model.
func (f *fsx) put(at int, data []byte) {
	if end := at + len(data); end > len(f.want) {
		f.want = append(f.want, make([]byte, end-len(f.want))...)
	}
	copy(f.want[at:], data)
}

func (f *fsx) random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(f.r.Uint32())
	}
	return b
}

func (f *fsx) step() (what string, err error) {
	at, n := f.part(maxSize)
	switch op := f.r.IntN(12); op {
	case 0, 1, 2:
		data := f.random(n)
		f.put(at, data)
		_, err = unix.Pwrite(f.fd, data, int64(at))
		what = fmt.Sprintf("write %d at %d", n, at)
	case 3, 4:
		what, err = fmt.Sprintf("read %d at %d", n, at), f.compare(at, n)
	case 5:
		if at < len(f.want) {
			f.want = f.want[:at]
		} else {
			f.put(at, nil)
		}
		what, err = fmt.Sprintf("truncate to %d", at), unix.Ftruncate(f.fd, int64(at))
	case 6, 7:
		if len(f.want) == 0 {
			return "nothing to map", nil
		}
		at = f.r.IntN(len(f.want))
		n = min(n, len(f.want)-at)
		what, err = fmt.Sprintf("map %d at %d", n, at), f.mapped(at, n, op == 7)
	case 8:
		err = unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, int64(at), int64(n))
		if err == nil && at < len(f.want) {
			clear(f.want[at:min(len(f.want), at+n)])
		}
		if err == unix.EOPNOTSUPP {
			err = nil
		}
		what = fmt.Sprintf("punch %d at %d", n, at)
	case 9:
		what, err = "reopen", f.reopen(0)
	case 10:
		what, err = "sync", unix.Fsync(f.fd)
		if err == nil && f.r.IntN(2) == 0 {
			what, err = "sync and drop", unix.Fadvise(f.fd, 0, 0, unix.FADV_DONTNEED)
		}
	case 11:
		var all []byte
		all, err = os.ReadFile(f.name)
		if err == nil && !bytes.Equal(all, f.want) {
			err = fmt.Errorf("the file has %d bytes, %s", len(all), difference(all, f.want))
		}
		what = "read all"
	}
	if err != nil {
		return what, fmt.Errorf("%s: %w", what, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil || st.Size != int64(len(f.want)) {
		return what, fmt.Errorf("%s: the size is %d, want %d, %w", what, st.Size, len(f.want), err)
	}
	return what, nil
}

func (f *fsx) compare(at, n int) error {
	b := make([]byte, n)
	got, err := unix.Pread(f.fd, b, int64(at))
	if err != nil {
		return err
	}
	want := f.want[min(at, len(f.want)):min(at+n, len(f.want))]
	if !bytes.Equal(b[:got], want) {
		return fmt.Errorf("read %d bytes, %s", got, difference(b[:got], want))
	}
	return nil
}

// mapped reads, or writes, by a mapping.
func (f *fsx) mapped(at, n int, write bool) error {
	from := at &^ 4095
	m, err := unix.Mmap(f.fd, int64(from), at-from+n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	if part := m[at-from:]; write {
		data := f.random(n)
		f.put(at, data)
		copy(part, data)
	} else if want := f.want[at : at+n]; !bytes.Equal(part, want) {
		err = fmt.Errorf("the mapping has %s", difference(part, want))
	}
	if e := unix.Munmap(m); err == nil {
		err = e
	}
	return err
}

func difference(got, want []byte) string {
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			return fmt.Sprintf("byte %d is %#x, want %#x", i, got[i], want[i])
		}
	}
	return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
}
