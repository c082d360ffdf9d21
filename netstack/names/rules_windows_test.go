package names

import (
	"errors"
	"reflect"
	"testing"

	"golang.org/x/sys/windows/registry"
)

// TestReadRules writes rules where nobody reads them.
func TestReadRules(t *testing.T) {
	const path = `SOFTWARE\lsub-test\DnsPolicyConfig`
	k, _, err := registry.CreateKey(registry.LOCAL_MACHINE, path+`\{1}`, registry.SET_VALUE)
	if err != nil {
		t.Skipf("only administrators write there: %v", err)
	}
	defer func() {
		for _, p := range []string{path + `\{1}`, path, `SOFTWARE\lsub-test`} {
			registry.DeleteKey(registry.LOCAL_MACHINE, p)
		}
	}()
	defer k.Close()
	if err := errors.Join(k.SetStringsValue("Name", []string{".corp.example"}), k.SetDWordValue("ConfigOptions", RuleServers), k.SetStringValue("GenericDNSServers", "10.0.0.1")); err != nil {
		t.Fatal(err)
	}
	want := []Rule{{[]string{".corp.example"}, "10.0.0.1", RuleServers}}
	if got := readRules([]string{`SOFTWARE\lsub-test\none`, path}); !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v, want %+v", got, want)
	}
}
