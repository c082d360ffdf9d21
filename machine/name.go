package machine

import (
	"fmt"
	"strings"

	"github.com/lsub/lsub/hint"
)

// maxName is the most bytes of a name: it becomes a host name.
const maxName = 63

// CheckName returns an error where name cannot be the name of a distro or a
// profile, as kind says.
func CheckName(kind, name string) error {
	const advice = "a name has letters, digits, '.', '_' and '-', starts with a letter or a digit, and is at most 63 long"
	switch {
	case name == "":
		return hint.New(fmt.Errorf("the name of a %s is empty", kind), advice)
	case len(name) > maxName:
		return hint.New(fmt.Errorf("%s name %.20q… is %d long", kind, name, len(name)), advice)
	}
	for i, c := range name {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || !strings.ContainsRune("._-", c)) {
			return hint.New(fmt.Errorf("%s name %q has an illegal character %q", kind, name, c), advice)
		}
	}
	return nil
}
