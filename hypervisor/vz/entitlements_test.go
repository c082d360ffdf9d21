package vz

import (
	"encoding/xml"
	"os"
	"strings"
	"testing"

	"github.com/lsub/lsub/hint"
)

// TestEntitlements reads the file that './task sign' signs with: it has to give what the
// message of an unsigned program asks for.
func TestEntitlements(t *testing.T) {
	b, err := os.ReadFile("lsub.entitlements")
	if err != nil {
		t.Fatal(err)
	}
	var plist struct {
		Dict struct {
			Key  []string   `xml:"key"`
			True []struct{} `xml:"true"`
		} `xml:"dict"`
	}
	if err := xml.Unmarshal(b, &plist); err != nil {
		t.Fatal(err)
	}
	if d := plist.Dict; len(d.Key) != 1 || d.Key[0] != entitlement || len(d.True) != 1 {
		t.Errorf("the file has the keys %q with %d times true, want %s alone", d.Key, len(d.True), entitlement)
	}
	tasks, err := os.ReadFile("../../Taskfile.yml")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\n  sign:\n", "--entitlements hypervisor/vz/lsub.entitlements"} {
		if !strings.Contains(string(tasks), want) {
			t.Errorf("Taskfile.yml has no %q", want)
		}
	}
	unsigned := &Error{Domain: domainVZ, Code: codeInvalidConfig, Details: entitlement}
	if advice := hint.Of(explain(unsigned)); !strings.Contains(advice, "./task sign") {
		t.Errorf("the advice for an unsigned program is %q", advice)
	}
}
