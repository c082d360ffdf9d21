//go:build unix

package main

import (
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
)

// registry VARIABLE [tls] starts an empty registry on this host, over plain
// http or with a certificate that nobody vouches for, and sets VARIABLE to its
// address.
func scriptRegistry(ts *testscript.TestScript, neg bool, args []string) {
	quiet := log.New(io.Discard, "", 0)
	s := httptest.NewUnstartedServer(registry.New(registry.Logger(quiet)))
	s.Config.ErrorLog = quiet
	if len(args) > 1 {
		s.StartTLS()
	} else {
		s.Start()
	}
	ts.Defer(s.Close)
	_, address, _ := strings.Cut(s.URL, "://")
	ts.Setenv(args[0], address)
}
