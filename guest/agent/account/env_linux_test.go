package account

import (
	"slices"
	"testing"

	"github.com/lsub/lsub/guest/guestv1"
)

func argv(words ...string) (out [][]byte) {
	for _, w := range words {
		out = append(out, []byte(w))
	}
	return out
}

func TestEnvironment(t *testing.T) {
	env := Environment(&Account{Name: "ann", Home: "/home/ann", Shell: "/bin/sh"}, &guestv1.Exec{Env: argv("A=b", "PATH=/x", "EMPTY=")})
	for key, want := range map[string]string{"A": "b", "PATH": "/x", "HOME": "/home/ann", "USER": "ann"} {
		if got := LookupEnv(env, key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	if !slices.Contains(env, "EMPTY=") {
		t.Error("an empty variable was lost")
	}
}

func TestDistroNames(t *testing.T) {
	env := Environment(Root(), &guestv1.Exec{Distro: &guestv1.Distro{Name: "my-box", Title: "My-Box"}})
	for _, key := range []string{"WSL_DISTRO_NAME", "LSUB_DISTRO_NAME"} {
		if got := LookupEnv(env, key); got != "My-Box" {
			t.Errorf("%s = %q", key, got)
		}
	}
	got := readVariables([]byte("# LANG=no\nLANG=de_DE.UTF-8\nexport A=\"b c\"\n\nbroken\n =x\n"))
	if want := []string{"LANG=de_DE.UTF-8", "A=b c"}; !slices.Equal(got, want) {
		t.Errorf("variables %q, want %q", got, want)
	}
}
