// Package filelock is an exclusive lock between processes, held on a file. The
// operating system releases it when its holder ends, however that happens.
//
//	l, err := filelock.Acquire(ctx, path, func() { log.Print("waiting") })
//	if err != nil {
//		return err
//	}
//	defer l.Release()
//
// Two holders in one process exclude each other too.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// ErrLocked says that another holder has the lock.
var ErrLocked = errors.New("locked by another process")

// Lock is a lock that is held. It is not safe for concurrent use.
type Lock struct{ f *os.File }

// Acquire locks the file at path, which it makes where there is none. It waits
// for another holder until ctx ends; waiting, if not nil, is called once before
// it waits. The caller must Release the lock. The file stays.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	switch err := lock(f); {
	case err == nil:
		return &Lock{f}, nil
	case !errors.Is(err, ErrLocked):
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if waiting != nil {
		waiting()
	}
	// The system call that waits cannot be interrupted: a thread would wait on when ctx has
	// ended, and hold the lock for a moment later. So this asks again and again.
	for pause := time.Millisecond; ; pause = min(2*pause, maxPause) {
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another lsub to release %s: %w", path, context.Cause(ctx))
		case <-time.After(pause):
		}
		switch err := lock(f); {
		case err == nil:
			return &Lock{f}, nil
		case !errors.Is(err, ErrLocked):
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}

// maxPause is the longest time between two tries.
const maxPause = 25 * time.Millisecond

// TryAcquire is Acquire without a wait: the error is [ErrLocked] where another
// holder has the lock.
func TryAcquire(path string) (*Lock, error) {
	f, err := open(path)
	if err != nil {
		return nil, err
	}
	if err := lock(f); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return &Lock{f}, nil
}

func open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
}

// Release gives the lock up.
func (l *Lock) Release() error { return l.f.Close() }
