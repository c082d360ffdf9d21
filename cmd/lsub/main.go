// Command lsub runs Linux distros in one light VM. docs/cli.md describes its
// commands, what they print and how they exit.
package main

import "os"

func main() {
	takeProxies()
	os.Exit(run(os.Args, production()))
}
