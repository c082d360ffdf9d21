package agent

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lsub/lsub/guest"
	"github.com/lsub/lsub/guest/guestv1"
)

// TestReadRequest has a host send a lot behind its request: nothing of that is lost,
// wherever the first read ended.
func TestReadRequest(t *testing.T) {
	want := &guestv1.ForwardRequest{Version: "1", Kind: &guestv1.ForwardRequest_Connect{
		Connect: &guestv1.Connect{Distro: "web-1", Network: "tcp", Address: "127.0.0.1:80"}}}
	var b bytes.Buffer
	if err := guest.NewWriter(&b).SendMessage(guest.FrameRequest, want); err != nil {
		t.Fatal(err)
	}
	request := b.Len()
	data := strings.Repeat("all of it, ", 20000)
	b.WriteString(data)
	for _, first := range []int{0, 1, request - 1, request, request + 1, request + 5000, b.Len()} {
		var req guestv1.ForwardRequest
		stream := bytes.NewReader(b.Bytes()[first:])
		head, err := readRequest(bytes.Clone(b.Bytes()[:first]), stream, &req)
		if err != nil || req.GetConnect().GetDistro() != "web-1" {
			t.Fatalf("%d bytes first: %v, %v", first, &req, err)
		}
		got := string(head) + string(b.Bytes()[b.Len()-stream.Len():])
		if got != data {
			t.Errorf("%d bytes first: %d bytes are left of %d", first, len(got), len(data))
		}
	}
}
