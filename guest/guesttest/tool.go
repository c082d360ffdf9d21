package guesttest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/lsub/lsub/transfer"
)

// tool is lsub's program in distros. The root of the distro's files is the host's directory
// LSUBTEST_FILES; home is /home in it. With LSUBTEST_COPY, it tells the test by the FIFO of
// that name once it has read 2 MiB, and goes on when the stream ends.
func tool(p *process) int {
	root := os.Getenv("LSUBTEST_FILES")
	var in io.Reader = p.stdin
	if fifo := os.Getenv("LSUBTEST_COPY"); fifo != "" {
		in = io.MultiReader(io.LimitReader(p.stdin, 2<<20), &untilEnd{p, fifo})
	}
	return transfer.Serve(context.Background(), transfer.ServeOptions{
		Args: p.argv[1:], Stdin: in, Stdout: p.stdout, Stderr: p.stderr,
		Path: func(path string) string {
			if !strings.HasPrefix(path, "/") {
				path = "/home/" + strings.TrimPrefix(strings.TrimPrefix(path, "~"), "/")
			}
			end := ""
			if strings.HasSuffix(path, "/.") {
				end = "/."
			} else if strings.HasSuffix(path, "/") {
				end = "/"
			}
			return filepath.Join(root, path) + end
		},
	})
}

// untilEnd wakes the test and reads on until its stream ends.
type untilEnd struct {
	p    *process
	fifo string
}

func (u *untilEnd) Read([]byte) (int, error) {
	if err := os.WriteFile(u.fifo, nil, 0); err != nil {
		return 0, err
	}
	<-u.p.done
	return 0, errors.New("the stream ended")
}
