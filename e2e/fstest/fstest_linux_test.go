package main

import (
	"regexp"
	"testing"
)

// TestCases checks the cases themselves: an ordinary directory passes them.
func TestCases(t *testing.T) {
	runCases(t.TempDir(), regexp.MustCompile(""), func(name string, errs []string) {
		for _, e := range errs {
			t.Errorf("%s: %s", name, e)
		}
	})
}

func TestRandomOps(t *testing.T) {
	if err := randomOps(t.TempDir(), 1, 1000, 0); err != nil {
		t.Error(err)
	}
}
