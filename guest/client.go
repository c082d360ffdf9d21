package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	"github.com/lsub/lsub/guest/guestv1"
	"github.com/lsub/lsub/guest/guestv1/guestv1connect"
	"github.com/lsub/lsub/hint"
)

// Client talks to the agent of one VM. It is safe for concurrent use, and
// needs no Close: it keeps no connection open between calls.
type Client struct {
	dialer  Dialer
	version string
	guestv1connect.GuestClient
}

// NewClient returns a client that reaches the guest through d. version is of
// the calling lsub; an agent of another one refuses its streams.
func NewClient(d Dialer, version string) *Client {
	hc := &http.Client{Transport: bounded{&http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return d.Dial(ctx, ControlPort)
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHead,
	}}}
	return &Client{
		dialer:      d,
		version:     version,
		GuestClient: guestv1connect.NewGuestClient(hc, "http://guest", ClientOptions()),
	}
}

// Errors cross RPC as a connect code, the message, and in headers our own code
// and the advice.
const (
	codeHeader = "Lsub-Error-Code"
	hintHeader = "Lsub-Error-Hint"
)

// received turns what the other side's sent made of an error back into an [Error].
func received(ctx context.Context, err error) error {
	var ce *connect.Error
	if !errors.As(err, &ce) {
		return err
	}
	if v := ce.Meta().Get(codeHeader); v != "" {
		n, _ := strconv.ParseInt(v, 10, 32)
		return Errorf(guestv1.ErrorCode(n), ce.Meta().Get(hintHeader), "%s", ce.Message())
	}
	if u := errors.Unwrap(ce); u != nil && ctx.Err() == nil {
		return u // what the dialer said, without the RPC's code before it
	}
	return err
}

// sent makes an error of what RPC carries: its code and advice ride beside it.
func sent(err error) error {
	if err == nil {
		return nil
	}
	ce := connect.NewError(connectCode(err), err)
	ce.Meta().Set(codeHeader, strconv.Itoa(int(ErrorCode(err))))
	ce.Meta().Set(hintHeader, hint.Of(err))
	return ce
}

// carriesErrors is the interceptor of both sides.
type carriesErrors struct{}

func (carriesErrors) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		res, err := next(ctx, req)
		switch {
		case err == nil:
			return res, nil
		case req.Spec().IsClient:
			return res, received(ctx, err)
		}
		return nil, sent(err)
	}
}

func (carriesErrors) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		return clientStream{next(ctx, spec), ctx}
	}
}

// clientStream receives errors as they were before they were sent.
type clientStream struct {
	connect.StreamingClientConn
	ctx context.Context
}

func (s clientStream) Receive(m any) error {
	err := s.StreamingClientConn.Receive(m)
	if err == nil || errors.Is(err, io.EOF) && connect.CodeOf(err) == connect.CodeUnknown {
		return err // io.EOF alone is the end of the stream
	}
	return received(s.ctx, err)
}

func (carriesErrors) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		return sent(next(ctx, conn))
	}
}

// Neither side trusts the other with its memory: a message has at most maxMessage bytes,
// and is never compressed, or a small one could become a large one.
const (
	maxMessage = 4 << 20 // some 40,000 listeners
	maxHead    = 64 << 10
)

// bounded ends an answer of one message that is too long. RPC would read it to its end.
type bounded struct{ http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	res, err := b.RoundTripper.RoundTrip(req)
	if err == nil && !strings.HasPrefix(res.Header.Get("Content-Type"), "application/connect+") {
		res.Body = &boundedBody{res.Body, maxMessage + maxHead}
	}
	return res, err
}

type boundedBody struct {
	io.ReadCloser
	left int
}

var errTooLong = fmt.Errorf("the answer has more than %d bytes", maxMessage)

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// ClientOptions are the options of every client of our services.
func ClientOptions() connect.ClientOption {
	return connect.WithClientOptions(
		connect.WithInterceptors(carriesErrors{}), connect.WithReadMaxBytes(maxMessage), connect.WithAcceptCompression("gzip", nil, nil))
}

// ServerOptions are the options of every server of our services: they carry an error's
// code and advice across.
func ServerOptions() connect.HandlerOption {
	return connect.WithHandlerOptions(
		connect.WithInterceptors(carriesErrors{}), connect.WithReadMaxBytes(maxMessage), connect.WithCompression("gzip", nil, nil))
}

// ErrorCode returns the code that err carries, or ERROR_CODE_UNSPECIFIED.
func ErrorCode(err error) guestv1.ErrorCode {
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return guestv1.ErrorCode_ERROR_CODE_UNSPECIFIED
}

// ErrorMessage returns err as the protocol carries it.
func ErrorMessage(err error) *guestv1.Error {
	// Names in a message may be any bytes; a message that is no UTF-8 would not go out at all.
	return &guestv1.Error{Code: ErrorCode(err), Message: strings.ToValidUTF8(err.Error(), "\ufffd"), Hint: strings.ToValidUTF8(hint.Of(err), "\ufffd")}
}

func connectCode(err error) connect.Code {
	switch ErrorCode(err) {
	case guestv1.ErrorCode_ERROR_CODE_INVALID, guestv1.ErrorCode_ERROR_CODE_BAD_IMAGE:
		return connect.CodeInvalidArgument
	case guestv1.ErrorCode_ERROR_CODE_NOT_FOUND:
		return connect.CodeNotFound
	case guestv1.ErrorCode_ERROR_CODE_ALREADY_EXISTS:
		return connect.CodeAlreadyExists
	case guestv1.ErrorCode_ERROR_CODE_NO_SPACE:
		return connect.CodeResourceExhausted
	case guestv1.ErrorCode_ERROR_CODE_VERSION:
		return connect.CodeFailedPrecondition
	}
	return connect.CodeUnknown
}
