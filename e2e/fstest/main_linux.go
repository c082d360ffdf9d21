// Command fstest checks that a directory keeps POSIX' promises. It knows nothing of what is
// behind the directory:
//
//	fstest DIR                        runs the cases
//	fstest -fsx 10m -seed 7 DIR       runs random operations on a file, against a model
//
// It prints what fails, and exits with 1 then.
package main

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"time"
)

func main() {
	run := flag.String("run", "", "run only the cases that match `REGEX`")
	fsx := flag.Duration("fsx", 0, "run random operations for this `TIME` instead of the cases")
	ops := flag.Int("ops", 0, "run this `NUMBER` of random operations instead of the cases")
	seed := flag.Int64("seed", time.Now().UnixNano(), "of the random operations")
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	dir := flag.Arg(0)
	failed := 0
	if *fsx > 0 || *ops > 0 {
		if err := randomOps(dir, *seed, *ops, *fsx); err != nil {
			fmt.Printf("seed %d: %v\n", *seed, err)
			failed++
		}
	} else {
		failed = runCases(dir, regexp.MustCompile(*run), func(name string, errs []string) {
			for _, e := range errs {
				fmt.Printf("%s: %s\n", name, e)
			}
		})
	}
	if failed > 0 {
		os.Exit(1)
	}
	fmt.Println("ok")
}
