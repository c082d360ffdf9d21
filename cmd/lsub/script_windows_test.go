package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// portable are the scripts of testdata/script that need nothing that Windows lacks, such as
// named pipes with a path or signals. Those that change the tasks of the login are left out:
// they would change the tester's, and Wine has none.
var portable = []string{"lifecycle", "list", "version", "registry_broken", "default", "snapshot", "clone"}

// TestScripts runs those scripts that Windows can run, and its own.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/windows/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range portable {
		files = append(files, filepath.Join("testdata", "script", name+".txtar"))
	}
	testscript.Run(t, testscript.Params{
		Files: files, RequireExplicitExec: true, RequireUniqueNames: true, Setup: setUpScript,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status": scriptStatus, "image": scriptImage, "expand": scriptExpand,
			"crlf": scriptCRLF,
		},
	})
}

func setUpScript(e *testscript.Env) error {
	for key, value := range map[string]string{
		"USERPROFILE": e.WorkDir, "LOCALAPPDATA": filepath.Join(e.WorkDir, "local"),
		"LSUB_HOME": filepath.Join(e.WorkDir, "home"), "TMP": filepath.Join(e.WorkDir, "tmp"), "TEMP": filepath.Join(e.WorkDir, "tmp"),
		"LSUB_PROFILE": "", "LSUB_LOG_LEVEL": "", "LSUBTEST": "", "LSUBTEST_VERSION": "", "LSUBTEST_PULL": "", "LSUBTEST_BOOT": "",
		"LSUBTEST_CATALOGUES": "", "LSUB_HCS_SCHEMA": os.Getenv("LSUB_HCS_SCHEMA"), "LSUB_HCS_FAIL": "",
		"PROFILE":    filepath.Join(e.WorkDir, "home", "profiles", "default"),
		"WINEPREFIX": os.Getenv("WINEPREFIX"), "WINEDLLOVERRIDES": os.Getenv("WINEDLLOVERRIDES"),
	} {
		e.Setenv(key, value)
	}
	env := e.Vars
	e.Defer(func() {
		if out, err := shutDown(env); err != nil {
			e.T().Log(string(out))
		}
	})
	return os.MkdirAll(filepath.Join(e.WorkDir, "tmp"), 0o700)
}

// crlf FILE… gives files the ends of lines that Windows' editors write.
func scriptCRLF(ts *testscript.TestScript, _ bool, args []string) {
	for _, file := range args {
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(strings.ReplaceAll(ts.ReadFile(file), "\n", "\r\n")), 0o600))
	}
}
