package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/websocket"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// webserver builds e2e/webserver, puts it into a distro and starts it on a port.
func webserver(t *testing.T, h *host, distro string, port int) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "webserver")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", file, "./webserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if r := h.runWith(f, "exec", "-u", "root", distro, "--", "sh", "-ec", "cat >/usr/local/bin/webserver; chmod +x /usr/local/bin/webserver"); r.code != 0 {
		t.Fatal(r)
	}
	if got := h.serve(t, distro, "webserver", fmt.Sprintf("localhost:%d", port)).line(); got != "ready" {
		t.Fatal(got)
	}
	within(t, quick, "the server's port opens", func() bool { return answers(fmt.Sprintf("localhost:%d", port)) })
}

// TestProtocols tests protocols with long-lived bidirectional connections: HTTP/2, gRPC and
// websockets.
func TestProtocols(t *testing.T) {
	h := debian(t)
	webserver(t, h, "debian", 18500)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	client := &http.Client{Transport: h2}

	t.Run("HTTP/2", func(t *testing.T) {
		var wg sync.WaitGroup
		for range 50 { // in parallel, over one connection
			wg.Go(func() {
				res, err := client.Get("http://localhost:18500/proto")
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				if b, err := io.ReadAll(res.Body); string(b) != "HTTP/2.0" || err != nil {
					t.Errorf("%q, %v", b, err)
				}
			})
		}
		wg.Wait()
	})
	t.Run("gRPC", func(t *testing.T) {
		c := connect.NewClient[wrapperspb.BytesValue, wrapperspb.BytesValue](client, "http://localhost:18500/lsub.e2e.Echo/Say", connect.WithGRPC())
		s := c.CallBidiStream(ctx)
		for _, size := range []int{0, 1, 1000, 1 << 20, 3, 3 << 20} {
			sent := wrapperspb.Bytes(bytes.Repeat([]byte{7}, size))
			if err := s.Send(sent); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Receive(); err != nil || !bytes.Equal(got.Value, sent.Value) {
				t.Fatalf("%d bytes of %d, %v", len(got.GetValue()), size, err)
			}
		}
		s.CloseRequest()
		if _, err := s.Receive(); !errors.Is(err, io.EOF) {
			t.Errorf("its end: %v", err)
		}
		s.CloseResponse()
	})
	t.Run("websocket", func(t *testing.T) {
		c, err := websocket.Dial("ws://localhost:18500/ws", "", "http://localhost/")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		for i := range 200 {
			var got string
			sent := fmt.Sprintf("message %d", i)
			if err := websocket.Message.Send(c, sent); err != nil {
				t.Fatal(err)
			}
			if err := websocket.Message.Receive(c, &got); err != nil || got != sent {
				t.Fatalf("%q, %v; want %q", got, err, sent)
			}
		}
	})
}
