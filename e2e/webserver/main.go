// Webserver is what the tests of ports run in a distro: a server of what people
// put behind a port of localhost today. It ends with its stdin.
//
//	webserver ADDRESS
//
// On one port, without encryption, over HTTP/1.1 and HTTP/2: /proto answers with
// the request's protocol, /ws is an echo over a websocket, and [Echo] one over
// gRPC, a message for each.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"connectrpc.com/connect"
	"golang.org/x/net/websocket"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Echo is the path of the gRPC method, whose messages are BytesValue.
const Echo = "/lsub.e2e.Echo/Say"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: webserver ADDRESS")
		os.Exit(2)
	}
	l, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "webserver:", err)
		os.Exit(1)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/proto", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	mux.Handle("/ws", websocket.Handler(func(c *websocket.Conn) { io.Copy(c, c) }))
	mux.Handle(Echo, connect.NewBidiStreamHandler(Echo, say))
	s := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

func say(_ context.Context, s *connect.BidiStream[wrapperspb.BytesValue, wrapperspb.BytesValue]) error {
	for {
		m, err := s.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = s.Send(m)
		}
		if err != nil {
			return err
		}
	}
}
