package modbus

import (
	"context"
	"fmt"
	"time"

	goburrow "github.com/goburrow/modbus"

	"haidang/drivers/link"
)

// connectTimeout bounds the making of a connection; a mobile line needs longer
// for it than for an answer.
const connectTimeout = 5 * time.Second

// A medium carries request frames to the units of a bus and brings back the
// answer to each. It is used by one goroutine at a time.
type medium interface {
	// Open connects where there is no connection. Its error is a *connectError
	// and means that the bus is lost.
	Open(ctx context.Context) error
	// Exchange returns a checked answer or an exception. It opens the medium
	// where it is closed. After a timeout it leaves the connection open when no
	// byte that may still come can be mixed up with a later frame; every other
	// error closes it.
	Exchange(ctx context.Context, request []byte) ([]byte, error)
	// Watch reports when the connection ends while nobody uses it, where that
	// is news; it is nil where nothing can be told. The next Exchange ends it.
	Watch() <-chan error
	// Close ends the connection; the next request makes a new one.
	Close()
}

// A dialer makes the connection of a medium.
type dialer func(ctx context.Context) (link.Stream, error)

func (e *endpoint) dialer() dialer {
	return func(ctx context.Context) (link.Stream, error) {
		ctx, cancel := context.WithTimeout(ctx, connectTimeout)
		defer cancel()
		return link.Dial(ctx, e.target, link.Options{Connect: connectTimeout})
	}
}

// A connectError says that a bus could not be connected.
type connectError struct {
	address string // host:port; "" when the cause says it
	cause   error
}

func (e *connectError) Error() string {
	if e.address == "" {
		return e.cause.Error() // it names the place
	}
	return fmt.Sprintf("connect to %s: %v", e.address, e.cause)
}

func (e *connectError) Unwrap() error { return e.cause }

// A framing wraps requests for one medium and unit.
type framing struct {
	goburrow.Packager
	address func(unit byte)
}

// tcpFraming counts its transactions over all units and connections, so that a
// late answer never has the number of the request that waits.
func tcpFraming() framing {
	handler := goburrow.NewTCPClientHandler("") // for its packager; its transporter stays unused
	return framing{handler, func(unit byte) { handler.SlaveId = unit }}
}

// rtuFraming adds address and CRC.
func rtuFraming() framing {
	handler := goburrow.NewRTUClientHandler("") // as above
	return framing{handler, func(unit byte) { handler.SlaveId = unit }}
}
