package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/pkg/sftp"
)

func init() { commands["sftp"] = serveFiles }

// serveFiles is the server of SFTP, for distros without one. Relative paths begin in the
// working directory, which is the user's home.
func serveFiles([]string) int {
	home, err := os.Getwd()
	if err != nil {
		home = "/"
	}
	server, err := sftp.NewServer(stdio{os.Stdin, os.Stdout}, sftp.WithServerWorkingDirectory(home))
	if err == nil {
		err = server.Serve()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "sftp:", err)
		return 1
	}
	return 0
}

type stdio struct {
	io.Reader
	io.WriteCloser
}
