package distro_test

import (
	"context"
	"fmt"
	"os"

	"github.com/lsub/lsub/distro"
)

// A program that installs a distro, runs a command in it, and removes it. The VM of this
// example is a fake; a program opens the machine of a profile with machine.Open.
func Example() {
	s, stop, err := fakeService(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stop()
	ctx := context.Background()

	d, err := s.Install(ctx, distro.InstallOptions{Archive: tinyImage(), Name: "tiny"})
	if err != nil {
		fmt.Println(err)
		return
	}
	exit, err := s.Exec(ctx, d, distro.Command{Argv: []string{"echo", "hello"}, Stdout: os.Stdout})
	fmt.Println("status", exit.Status(), err)

	fmt.Println(s.Unregister(ctx, d))
	all, err := s.List(ctx, distro.ListOptions{})
	fmt.Println(len(all), "distros", err)

	// Output:
	// hello
	// status 0 <nil>
	// <nil>
	// 0 distros <nil>
}
