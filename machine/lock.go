package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// errLocked is what tryLock returns when another process holds the lock.
var errLocked = errors.New("locked by another process")

// fileLock is an exclusive lock between processes. The operating system
// releases it when the process dies, however it dies.
type fileLock struct{ f *os.File }

// lock takes the lock, and waits for it as long as ctx allows.
func lock(ctx context.Context, path string) (*fileLock, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, false); err == nil {
		return &fileLock{f}, nil
	} else if !errors.Is(err, errLocked) {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	// The system call cannot be interrupted. Where ctx ends first, the
	// goroutine releases the lock as soon as it gets it.
	got := make(chan error)
	go func() {
		err := lockFile(f, true)
		select {
		case got <- err:
		case <-ctx.Done():
			f.Close()
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return &fileLock{f}, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
	}
}

// tryLock takes the lock or returns [errLocked] at once.
func tryLock(path string) (*fileLock, error) {
	f, err := openLock(path)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f, false); err != nil {
		f.Close()
		return nil, err
	}
	return &fileLock{f}, nil
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
}

// unlock releases the lock.
func (l *fileLock) unlock() { l.f.Close() }
