// Lsub-tool is what lsub runs in distros, as their users: the far side of 'lsub cp'. Distros
// see it as /run/lsub/bin/lsub-tool. By another name it is that command (wslpath). What it
// does, any program of the distro could do.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() { os.Exit(run(os.Args)) }

func run(args []string) int {
	if filepath.Base(args[0]) == "wslpath" {
		return wslpath(args)
	}
	if len(args) > 1 {
		if command := commands[args[1]]; command != nil {
			return command(args[1:])
		}
	}
	fmt.Fprintln(os.Stderr, "lsub-tool: this is for lsub, which calls it in distros")
	return 2
}
