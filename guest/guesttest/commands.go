package guesttest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
)

// command is a program of the fake. It returns its exit code, or signalled
// plus the number of the signal that ended it.
type command func(p *process) int

const signalled = 1 << 16

// commands by name. Those below the line exist in no distro: they make what a
// test wants to see.
var commands map[string]command

func init() {
	commands = map[string]command{ // not initialized in place: shell refers to it
		"true":  func(*process) int { return 0 },
		"false": func(*process) int { return 1 },
		"echo":  echo,
		"cat":   cat,
		"env":   env,
		"pwd":   func(p *process) int { fmt.Fprintln(p.stdout, p.cwd); return 0 },
		"id":    func(p *process) int { fmt.Fprintln(p.stdout, p.user); return 0 },
		"exit":  exit,
		"sh":    shell,
		"sleep": sleep,
		"stty":  stty,
		"kill":  kill,

		"ask":       ask,      // ask PROMPT: reads a line from /dev/tty and prints it
		"ttysize":   ttysize,  // prints the size of /dev/tty, at first and when it changes
		"oobe":      oobe,     // asks for a name and makes the one account that a distro has beside root
		"args":      args,     // prints each argument, quoted
		"warn":      warn,     // echo to stderr
		"-dash":     args,     // a name that looks like a flag
		"trap":      trap,     // prints the next signal
		"winch":     winch,    // prints the size of the terminal when it changes
		"wake":      wake,     // wake FIFO: lets a test on the host go on that reads it
		"hog":       hog,      // is killed because the distro is out of memory
		"scripts":   scripts,  // prints what was run as "sh -s" in the distro
		"limits":    limits,   // prints what the distro may use: memory, CPU, processes
		"network":   network,  // prints whether the distro has the VM's network or one of its own
		"listen":    listen,   // listen PORT [FIFO]: listens on 0.0.0.0 until a signal comes, and echoes; wakes once it does
		"halt":      halt,     // halt FIFO: has the VM paused, wakes, and goes on at the next signal
		"lsub-tool": tool,     // is the far side of a copy: the distro's files are in the directory LSUBTEST_FILES
		"poweroff":  poweroff, // powers the VM off
		"panic":     panics,   // makes the VM die
	}
}

// oobe is what WSL's images run before their first shell.
func oobe(p *process) int {
	fmt.Fprintf(p.stdout, "as %s, user name: ", p.user)
	in := bufio.NewScanner(terminal{p})
	in.Scan()
	name := strings.TrimSpace(in.Text())
	if name == "" {
		return 3
	}
	if err := p.g.disk.addUser(p.distro, name); err != nil {
		fmt.Fprintln(p.stderr, err)
		return 1
	}
	return 0
}

func echo(p *process) int {
	fmt.Fprintln(p.stdout, strings.Join(p.argv[1:], " "))
	return 0
}

func warn(p *process) int {
	fmt.Fprintln(p.stderr, strings.Join(p.argv[1:], " "))
	return 0
}

func cat(p *process) int {
	if _, err := io.Copy(p.stdout, p.stdin); err != nil {
		return 1
	}
	return 0
}

func env(p *process) int {
	vars := slices.Clone(p.env)
	slices.Sort(vars)
	for _, v := range vars {
		fmt.Fprintln(p.stdout, v)
	}
	return 0
}

func args(p *process) int {
	for _, a := range p.argv[1:] {
		fmt.Fprintf(p.stdout, "%q\n", a)
	}
	return 0
}

func exit(p *process) int {
	if len(p.argv) < 2 {
		return 0
	}
	n, err := strconv.Atoi(p.argv[1])
	if err != nil {
		return 2
	}
	return n & 255
}

// kill -N sends a signal to itself.
func kill(p *process) int {
	n, err := strconv.Atoi(strings.TrimPrefix(p.argv[len(p.argv)-1], "-"))
	if err != nil {
		return 2
	}
	return signalled + n
}

func hog(p *process) int {
	p.reason = "killed: distro " + p.getenv("DISTRO") + " is out of memory"
	return signalled + 9
}

func limits(p *process) int {
	l := p.g.disk.limits(p.distro)
	fmt.Fprintln(p.stdout, l.GetMemoryMax(), l.GetCpuMax(), l.GetPidsMax())
	return 0
}

func network(p *process) int {
	if p.g.disk.isolated(p.distro) {
		fmt.Fprintln(p.stdout, "isolated")
	} else {
		fmt.Fprintln(p.stdout, "shared")
	}
	return 0
}

func stty(p *process) int {
	if !p.tty {
		fmt.Fprintln(p.stderr, "stty: standard input is no terminal")
		return 1
	}
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	fmt.Fprintln(p.stdout, p.s.rows, p.s.cols)
	return 0
}

func winch(p *process) int {
	if len(p.argv) > 1 {
		wake(p)
	}
	<-p.s.resized
	return stty(p)
}

// sleep ends with its stream, or by a signal.
func sleep(p *process) int {
	close(p.trapped)
	if len(p.argv) > 1 {
		wake(p)
	}
	return signalled + <-p.trap
}

func trap(p *process) int {
	close(p.trapped)
	if len(p.argv) > 1 {
		wake(p)
	}
	fmt.Fprintln(p.stdout, "signal", <-p.trap)
	return 0
}

// wake opens a FIFO of the host's, which lets its reader go on.
func wake(p *process) int {
	f, err := os.OpenFile(p.argv[len(p.argv)-1], os.O_WRONLY, 0)
	if err != nil {
		fmt.Fprintln(p.stderr, err)
		return 1
	}
	f.Close()
	return 0
}

func halt(p *process) int {
	close(p.trapped)
	p.g.Pause(errors.New("the host's disk is full"))
	wake(p)
	<-p.trap
	p.g.Pause(nil)
	return 0
}

func poweroff(p *process) int {
	p.g.off <- nil
	<-p.done
	return 0
}

func panics(p *process) int {
	fmt.Fprintln(p.g.Console, "[    1.000000] Kernel panic - not syncing: asked for")
	p.g.off <- errors.New("the guest crashed")
	<-p.done
	return 0
}

// shell runs "sh -c LINE", or else the lines that it reads.
func shell(p *process) int {
	if hostScript(p.argv) {
		return runOnHost(p)
	}
	if len(p.argv) == 3 && p.argv[1] == "-c" {
		return p.line(p.argv[2])
	}
	if len(p.argv) == 2 && p.argv[1] == "-s" {
		return script(p)
	}
	code := 0
	in := bufio.NewScanner(terminal{p})
	prompt := func() {
		if p.tty && (p.pipes == nil || !p.pipes.Stdin) {
			fmt.Fprint(p.stdout, "$ ")
		}
	}
	for prompt(); in.Scan(); prompt() {
		words := strings.Fields(in.Text())
		if len(words) > 0 && words[0] == "exit" {
			q := *p
			q.argv = words
			return exit(&q)
		}
		code = p.line(in.Text())
	}
	return code
}

// script keeps a whole script, and runs nothing of it.
func script(p *process) int {
	text, err := io.ReadAll(p.stdin)
	if err != nil {
		return 1
	}
	p.g.disk.mu.Lock()
	defer p.g.disk.mu.Unlock()
	p.g.disk.scripts[p.distro] = append(p.g.disk.scripts[p.distro], string(text))
	return 0
}

func scripts(p *process) int {
	p.g.disk.mu.Lock()
	defer p.g.disk.mu.Unlock()
	for _, s := range p.g.disk.scripts[p.distro] {
		io.WriteString(p.stdout, s)
	}
	return 0
}

// terminal is stdin as a terminal driver hands it on: Enter ends a line, and
// Ctrl-D the input.
type terminal struct{ p *process }

func (t terminal) Read(b []byte) (int, error) {
	n, err := t.p.stdin.Read(b)
	if !t.p.tty || t.p.pipes != nil && t.p.pipes.Stdin {
		return n, err
	}
	for i, c := range b[:n] {
		switch c {
		case '\r':
			b[i] = '\n'
		case 4:
			return i, io.EOF
		}
	}
	return n, err
}
