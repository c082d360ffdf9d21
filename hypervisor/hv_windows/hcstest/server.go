package hcstest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	hvwindows "github.com/lsub/lsub/hypervisor/hv_windows"
)

// Server offers a host to other processes, by TCP: to the DLL that stands in for
// computecore.dll, and to [Remote]. So a Windows program under Wine has VMs whose engine is a
// program of Linux.
//
// A connection begins with a line that asks for something, and the line that answers it: "ok",
// or "error HRESULT TEXT". Some go on after that:
//
//	create ID BYTES       then the document; "ok RUNTIME", and when the machine is gone,
//	                      "exit DOCUMENT". The end of the connection closes the machine.
//	grant ID PATH
//	start|terminate|pause|resume RUNTIME
//	console RUNTIME PIPE  what comes out of the serial port follows
//	dial RUNTIME PORT     the stream follows
//	listen RUNTIME PORT   then a line for each stream: what accepts it
//	accept NAME           the stream follows
type Server struct {
	Host *Host
	// Path returns the path here of one of Windows, such as Wine's.
	Path func(string) string

	work    sync.WaitGroup
	mu      sync.Mutex
	waiting map[string]net.Conn // streams that nobody has accepted yet, by name
}

// Serve takes connections until the listener is closed, and closes them then: no machine is left.
func (s *Server) Serve(l net.Listener) error {
	s.waiting = map[string]net.Conn{}
	open, end := context.WithCancel(context.Background())
	for {
		c, err := l.Accept()
		if err != nil {
			end()
			s.work.Wait()
			return err
		}
		s.work.Go(func() {
			defer c.Close()
			defer context.AfterFunc(open, func() { c.Close() })()
			s.serve(c.(*net.TCPConn))
		})
	}
}

func (s *Server) serve(c *net.TCPConn) {
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return
	}
	verb, rest, _ := strings.Cut(strings.TrimRight(line, "\r\n"), " ")
	name, rest, _ := strings.Cut(rest, " ")
	switch verb {
	case "create":
		s.create(c, r, name, rest)
	case "grant":
		answer(c, "", s.Host.Grant(name, s.Path(rest)))
	case "start", "terminate", "pause", "resume":
		answer(c, "", s.change(verb, name))
	case "console":
		console, err := s.Host.OpenConsole(rest)
		if answer(c, "", err) {
			defer console.Close()
			io.Copy(c, console)
		}
	case "dial":
		port, err := strconv.ParseUint(rest, 10, 32)
		if err == nil {
			var stream net.Conn
			if stream, err = s.Host.Dial(context.Background(), name, uint32(port)); err == nil {
				answer(c, "", nil)
				join(stream, c, r)
				return
			}
		}
		answer(c, "", err)
	case "listen":
		s.listen(c, name, rest)
	case "accept":
		s.mu.Lock()
		stream := s.waiting[name]
		delete(s.waiting, name)
		s.mu.Unlock()
		if stream == nil {
			answer(c, "", errors.New("there is no such stream"))
			return
		}
		answer(c, "", nil)
		join(stream, c, r)
	default:
		answer(c, "", fmt.Errorf("unknown request %q", verb))
	}
}

// answer writes the line, and returns whether it is "ok".
func answer(w io.Writer, value string, err error) bool {
	if err == nil {
		fmt.Fprintln(w, strings.TrimSpace("ok "+value))
		return true
	}
	result := hvwindows.Result(0x80004005) // E_FAIL
	if errors.Is(err, syscall.ECONNREFUSED) {
		result = refused
	}
	errors.As(err, &result)
	fmt.Fprintf(w, "error %08X %s\n", uint32(result), strings.ReplaceAll(err.Error(), "\n", " "))
	return false
}

// create makes a machine that lives as long as its connection.
func (s *Server) create(c net.Conn, r *bufio.Reader, id, size string) {
	n, err := strconv.Atoi(size)
	if err != nil || n < 0 || n > 1<<20 {
		answer(c, "", fmt.Errorf("a document of %s bytes", size))
		return
	}
	document := make([]byte, n)
	if _, err := io.ReadFull(r, document); err != nil {
		return
	}
	if document, err = s.here(document); err != nil {
		answer(c, "", failure("HcsCreateComputeSystem", hvwindows.InvalidJSON, err.Error()))
		return
	}
	system, err := s.Host.Create(id, document)
	if err != nil {
		answer(c, "", err)
		return
	}
	defer system.Close()
	runtime, err := system.RuntimeID()
	if !answer(c, runtime, err) {
		return
	}
	closed := make(chan struct{})
	go func() {
		io.Copy(io.Discard, r)
		close(closed)
	}()
	select {
	case status := <-system.Exited():
		fmt.Fprintln(c, "exit", status)
		<-closed
	case <-closed:
	}
}

// here gives a document the paths that its files have here.
func (s *Server) here(document []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(document))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	return json.Marshal(s.translate(v))
}

func (s *Server) translate(v any) any {
	switch v := v.(type) {
	case string:
		if len(v) > 2 && v[1:3] == `:\` {
			return s.Path(v)
		}
	case map[string]any:
		for key, value := range v {
			v[key] = s.translate(value)
		}
	}
	return v
}

// find returns a machine by its runtime identifier.
func (s *Server) find(runtime string) (*System, error) {
	if system, _ := s.Host.find(runtime); system != nil {
		return system, nil
	}
	return nil, failure("the stand-in", hvwindows.SystemNotFound, "")
}

func (s *Server) change(verb, runtime string) error {
	system, err := s.find(runtime)
	if err != nil {
		return err
	}
	switch verb {
	case "start":
		return system.Start()
	case "terminate":
		return system.Terminate()
	case "pause":
		return system.Pause()
	}
	return system.Resume()
}

// listen passes on the guest's streams until the connection ends.
func (s *Server) listen(c net.Conn, runtime, port string) {
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil {
		answer(c, "", err)
		return
	}
	l, err := s.Host.Listen(runtime, uint32(n))
	if !answer(c, "", err) {
		return
	}
	var gone sync.WaitGroup
	defer gone.Wait()
	gone.Go(func() {
		io.Copy(io.Discard, c)
		l.Close()
	})
	defer c.Close()
	for {
		stream, err := l.Accept()
		if err != nil {
			return
		}
		name := rand.Text()
		s.mu.Lock()
		s.waiting[name] = stream
		s.mu.Unlock()
		if _, err := fmt.Fprintln(c, name); err != nil {
			stream.Close()
		}
	}
}

// join moves bytes between a guest's stream and a connection, and passes on each end.
func join(stream net.Conn, c *net.TCPConn, r io.Reader) {
	defer stream.Close()
	var both sync.WaitGroup
	defer both.Wait()
	both.Go(func() {
		if _, err := io.Copy(stream, r); err != nil {
			stream.Close()
			return
		}
		stream.(interface{ CloseWrite() error }).CloseWrite()
	})
	if _, err := io.Copy(c, stream); err != nil {
		c.Close()
		return
	}
	c.CloseWrite()
}

// WinePath returns the path of a file of Wine's, by the links that a prefix has for its drives.
func WinePath(prefix string) func(string) string {
	return func(path string) string {
		if len(path) < 3 || path[1] != ':' {
			return path
		}
		drive := filepath.Join(prefix, "dosdevices", strings.ToLower(path[:2]))
		if root, err := filepath.EvalSymlinks(drive); err == nil {
			drive = root
		}
		return filepath.Join(drive, strings.ReplaceAll(path[3:], `\`, "/"))
	}
}
