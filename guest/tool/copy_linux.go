package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsub/lsub/transfer"
)

// commands by their name; args[0] is it.
var commands = map[string]func(args []string) int{
	transfer.CommandSend:    copyFiles,
	transfer.CommandReceive: copyFiles,
}

// copyFiles is one side of a copy. SIGHUP says that the other is gone.
func copyFiles(args []string) int {
	transfer.StayInCalls()
	// Threads that make files in one directory wait for each other, and in a VM that is
	// emulated they spin: two take as long as one, and twice the CPU.
	runtime.GOMAXPROCS(1)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	stdin := pollable(0, "stdin")
	context.AfterFunc(ctx, func() { stdin.SetReadDeadline(time.Now()) })
	home, err := os.Getwd()
	if err != nil {
		home = "/"
	}
	return transfer.Serve(ctx, transfer.ServeOptions{
		Args: args, Stdin: stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Path: func(p string) string { return underHome(home, p) },
	})
}

// underHome is the path that a user means. A slash at its end, and "/.", mean something.
func underHome(home, p string) string {
	switch {
	case p == "" || p == "~":
		return home
	case strings.HasPrefix(p, "~/"):
		return home + "/" + strings.TrimLeft(p[2:], "/")
	case filepath.IsAbs(p):
		return p
	}
	return home + "/" + p
}

// pollable returns a descriptor that is a pipe as a file whose reads have deadlines.
func pollable(fd int, name string) *os.File {
	unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}
