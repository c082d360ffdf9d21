// Package filelock is an exclusive lock between processes, held on a file. The
// operating system gives it up when its holder ends, however that happens.
package filelock

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Lock is a lock held. It is not safe for concurrent use.
type Lock struct{ f *os.File }

// retry is how often a lock that another process holds is asked for again. No
// operating system offers a wait for a file lock that a context could end.
const retry = 100 * time.Millisecond

// Acquire locks the file at path, making it where it is missing. It waits for
// another holder as long as ctx allows; waiting, if not nil, is called once
// before it does. The caller must Release the lock. The file stays.
func Acquire(ctx context.Context, path string, waiting func()) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		ok, err := tryLock(f)
		if ok {
			return &Lock{f}, nil
		}
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another lsub to release %s: %w", path, context.Cause(ctx))
		case <-time.After(retry):
		}
	}
}

// Release gives the lock up.
func (l *Lock) Release() error { return l.f.Close() }
