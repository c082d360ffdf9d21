// Package nsthread runs functions on an OS thread that lives in other namespaces than
// the rest of the program: those of a distro, or a network namespace.
//
// A process that the thread starts is in the distro, a path that it opens is the
// distro's, and a socket that it makes is in the distro's network. Entering a distro
// costs one fork that way, and the agent needs no helper program inside:
//
//	t, err := nsthread.Enter(pid)
//	defer t.Close()
//	file, err := nsthread.Call(ctx, t, func() (*os.File, error) {
//		return os.Open("/etc/passwd")
//	}, func(f *os.File) { f.Close() })
//
// The package is Linux only.
package nsthread
