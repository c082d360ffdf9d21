// Package distro is lsub as a Go API: it installs, runs, changes and removes the distros
// of a profile. The command line is one of its callers.
//
// A [Service] works on the distros of one [machine.Machine]:
//
//	s := distro.New(distro.Config{Machine: m, Paths: paths, Version: version})
//	ref, err := s.Resolve(ctx, "alpine:3.22", "")
//	d, err := s.Install(ctx, distro.InstallOptions{Image: ref})
//	exit, err := s.Exec(ctx, d, distro.Command{Argv: []string{"id"}, Stdout: &out})
//	err = s.Unregister(ctx, d)
//
// Nothing here prints, reads a flag or asks a user. What happens meanwhile goes to the
// [Events] of the caller. Errors are for users to read, and many carry a hint.
//
// # Distros
//
// [Service.Find] and [Service.List] return distros as the registry has them at that
// moment. Operations take such a picture, and go by its ID: they work on the same distro
// after it was renamed, and fail if it was removed.
//
// # Contexts
//
// The context bounds the whole operation, with the start of the VM where one is needed.
// The service has bounds of its own for each question to the guest, so that a VM that
// hangs does not hang its caller. When the context ends, the operation returns soon with
// an error for which errors.Is(err, context.Canceled) or DeadlineExceeded holds. A VM that
// is starting goes on starting.
//
// # Interrupted operations
//
// An operation changes the registry last when it makes something, and first when it
// removes something. The registry decides: at its next start, the VM deletes from its disk
// what the registry does not list. So an operation that was cut off, even by the end of
// the process, has happened or has not. Images that were downloaded stay in the cache.
// The method says where more is left.
//
// # Concurrency
//
// A Service is safe for concurrent use, also by several processes on the same profile.
// Its Events are called from the goroutines of all operations that run; give each
// operation its own with [Service.With].
package distro
