package converge

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
	"time"

	"github.com/lsub/lsub/distro"
	"github.com/lsub/lsub/hint"
	"github.com/lsub/lsub/machine"
	"github.com/lsub/lsub/profile"
)

const (
	probePause = 250 * time.Millisecond
	// probeOnce bounds one answer of a probe by port or http. A script has all of the time.
	probeOnce = 10 * time.Second
)

// probes waits until the distro is ready.
func (o *one) probes(ctx context.Context) error {
	if o.o.DryRun {
		return nil
	}
	for _, p := range o.want.Probes {
		if err := Await(ctx, o.cfg.Service, &o.info.Distro, p); err != nil {
			return err
		}
	}
	return nil
}

// name names a probe for people.
func name(p profile.Probe) string {
	switch {
	case p.Port != 0:
		return fmt.Sprintf("port %d", p.Port)
	case p.HTTP != "":
		return p.HTTP
	}
	return "the script"
}

// Await waits until a probe of a distro that runs succeeds, for at most the probe's time.
func Await(ctx context.Context, s *distro.Service, d *machine.Distro, p profile.Probe) error {
	limit, cancel := context.WithTimeout(ctx, p.Timeout)
	defer cancel()
	for {
		try, end := attempt(ctx, limit)
		why := probe(try, s, d, p)
		end()
		if why == nil {
			return nil
		}
		select {
		case <-limit.Done():
		case <-time.After(probePause):
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		err := fmt.Errorf("%s is not ready after %v: %s: %w", d.Name, p.Timeout, name(p), why)
		if p.At != "" {
			err = fmt.Errorf("%s: %w", p.At, err)
		}
		return hint.New(err, "'lsub logs "+d.Name+"' has its journal")
	}
}

// attempt bounds one question by the time that is left, and by probeOnce where less is left:
// the last answer says why there was none before.
func attempt(ctx, limit context.Context) (context.Context, context.CancelFunc) {
	until, bounded := limit.Deadline()
	if !bounded {
		return context.WithCancel(ctx)
	}
	if least := time.Now().Add(probeOnce); until.Before(least) {
		until = least
	}
	return context.WithDeadline(ctx, until)
}

func probe(ctx context.Context, s *distro.Service, d *machine.Distro, p profile.Probe) error {
	if p.Script != "" {
		var out limited
		exit, err := s.Exec(ctx, d, distro.Command{
			Argv: []string{"/bin/sh", "-c", p.Script}, User: "root", Stdout: &out, Stderr: &out,
		})
		if err == nil && exit.Status() != 0 {
			err = fmt.Errorf("status %d: %s", exit.Status(), lastLines(out.String(), 1)[0])
		}
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, probeOnce)
	defer cancel()
	if p.Port != 0 {
		conn, err := s.Connect(ctx, d, int(p.Port))
		if err == nil {
			conn.Close()
		}
		return err
	}
	return get(ctx, s, d, p.HTTP)
}

// get asks a web server in a distro.
func get(ctx context.Context, s *distro.Service, d *machine.Distro, address string) error {
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
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Connect(ctx, d, port) },
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
