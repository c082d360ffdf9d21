package provision

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/printable"
	"github.com/lsub/lsub/profile"
)

const (
	// Pause is between one question and the next.
	Pause = 250 * time.Millisecond
	// probeOnce bounds one answer of a probe by port or http. A script has all of the time.
	probeOnce = 10 * time.Second
)

// ProbeName names a probe for people.
func ProbeName(p profile.Probe) string {
	switch {
	case p.Port != 0:
		return fmt.Sprintf("port %d", p.Port)
	case p.HTTP != "":
		return p.HTTP
	}
	return "the script"
}

// Await waits until a probe of a distro that runs succeeds, for at most the probe's time.
func (r Runner) Await(ctx context.Context, p profile.Probe) error {
	limit, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	for {
		try, end := Attempt(ctx, limit)
		why := r.Probe(try, p)
		end()
		if why == nil {
			return nil
		}
		if guest.ErrorCode(why) == guestv1.ErrorCode_ERROR_CODE_NOT_RUNNING {
			return why // the target does not start it
		}
		select {
		case <-limit.Done():
		case <-time.After(Pause):
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := fmt.Errorf("%s is not ready after %v: %s: %w", r.Distro, p.Timeout, ProbeName(p), why)
		if p.At != "" {
			err = fmt.Errorf("%s: %w", p.At, err)
		}
		return hint.New(err, "'lsub logs "+r.Distro+"' has its journal")
	}
}

// Attempt bounds one question by the time that is left, and by probeOnce where less is left:
// the last answer says why there was none before.
func Attempt(ctx, limit context.Context) (context.Context, context.CancelFunc) {
	until, bounded := limit.Deadline()
	if !bounded {
		return context.WithCancel(ctx)
	}
	if least := time.Now().Add(probeOnce); until.Before(least) {
		until = least
	}
	return context.WithDeadline(ctx, until)
}

// Probe asks once, and returns why the distro is not ready.
func (r Runner) Probe(ctx context.Context, p profile.Probe) error {
	if p.Script != "" {
		var out Limited
		exit, err := r.Target.Exec(ctx, Command{
			Argv: []string{"/bin/sh", "-c", p.Script}, User: "root", Stdout: &out, Stderr: &out,
		})
		if err == nil && exit.Status() != 0 {
			err = fmt.Errorf("status %d: %s", exit.Status(), LastLines(out.String(), 1)[0])
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeOnce)
	defer cancel()
	if p.Port != 0 {
		conn, err := r.Target.Connect(ctx, int(p.Port))
		if err == nil {
			conn.Close()
		}
		return err
	}
	return r.get(ctx, p.HTTP)
}

// get asks a web server in a distro.
func (r Runner) get(ctx context.Context, address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	port := 80
	if text := u.Port(); text != "" {
		if port, err = strconv.Atoi(text); err != nil {
			return err
		}
	}
	client := http.Client{
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return r.Target.Connect(ctx, port) },
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	defer res.Body.Close()
	io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	if res.StatusCode >= 400 {
		return errors.New(string(bytes.TrimSpace([]byte("the answer is " + strconv.Itoa(res.StatusCode) + " " + http.StatusText(res.StatusCode)))))
	}
	return nil
}

// LastLines returns the last lines of a text.
func LastLines(text string, n int) []string {
	lines := strings.Split(strings.TrimSpace(printable.Text(text)), "\n")
	return lines[max(0, len(lines)-n):]
}

// Limited keeps the first bytes that are written to it.
type Limited struct{ bytes.Buffer }

// maxAnswer is the most bytes of an answer.
const maxAnswer = 8 << 20

// Write takes all, also what it does not keep.
func (l *Limited) Write(p []byte) (int, error) {
	l.Buffer.Write(p[:min(len(p), maxAnswer-l.Len())])
	return len(p), nil
}
