// Package account knows the users of a distro: who a command runs as, with what
// environment, and what a new distro needs so that its user can work.
//
// A distro's own files say which users there are. They are read at each command, since
// the distro changes them at will; root gets in whatever they hold:
//
//	who, err := account.ForCommand(cmd) // where the distro is the root
//	env := account.Environment(who, cmd)
//
// [Prepare] gives a new distro its machine id, its user's account and the environment
// of its container image. The package is Linux only.
package account
