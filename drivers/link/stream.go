package link

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// A Stream is an open line of raw bytes, both ways: a net.Conn without
// addresses. One goroutine may read while another writes; Close ends both.
type Stream interface {
	io.ReadWriteCloser
	// SetReadDeadline bounds reads, also the one under way. A Read past it fails
	// with an error for which errors.Is(err, os.ErrDeadlineExceeded). The zero
	// time is no bound.
	SetReadDeadline(time.Time) error
	// SetWriteDeadline is the same for writes.
	SetWriteDeadline(time.Time) error
}

// Dial opens a stream to a tcp:// or serial:// target within Options.Connect.
//
// Where a serial device is missing, or was unplugged, the error has a method
// Wait(ctx) error that returns nil as soon as the device is there again.
func Dial(ctx context.Context, t Target, o Options) (Stream, error) {
	o = o.withDefaults()
	switch t.Scheme {
	case TCP:
		d := net.Dialer{Timeout: o.Connect, KeepAliveConfig: keepAlive}
		conn, err := d.DialContext(ctx, "tcp", t.Address)
		if err != nil {
			return nil, fmt.Errorf("connect to %s: %w", t, err)
		}
		return conn, nil
	case Serial:
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return openSerial(t)
	}
	return nil, fmt.Errorf("connect to %s: want tcp://host:port or serial:///dev/name", t)
}

// A Listener takes streams that others open.
type Listener struct {
	inner   net.Listener
	room    chan struct{} // as many as there may be streams
	refused func(peer string)
}

// Bind listens on a listen:// target. At most Options.MaxPeers streams of the
// listener are open at one time; one more is told to Options.Refused and
// closed.
func Bind(ctx context.Context, t Target, o Options) (*Listener, error) {
	o = o.withDefaults()
	if t.Scheme != Listen {
		return nil, fmt.Errorf("listen on %s: want listen://host:port", t)
	}
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	inner, err := lc.Listen(ctx, "tcp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", t, err)
	}
	return &Listener{inner: inner, room: make(chan struct{}, o.MaxPeers), refused: o.Refused}, nil
}

// Addr is the address that is listened on, with the port that the system chose.
func (l *Listener) Addr() string { return l.inner.Addr().String() }

// Close stops listening; streams that were accepted stay open.
func (l *Listener) Close() error { return l.inner.Close() }

// Accept waits for the next stream and names its other side. When the context
// ends it closes the listener and returns the context's error.
func (l *Listener) Accept(ctx context.Context) (Stream, string, error) {
	stop := context.AfterFunc(ctx, func() { l.inner.Close() })
	defer stop()
	for {
		conn, err := l.inner.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil, "", ctx.Err()
			}
			return nil, "", fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		peer := conn.RemoteAddr().String()
		select {
		case l.room <- struct{}{}:
			return &accepted{Conn: conn, leave: func() { <-l.room }}, peer, nil
		default:
			l.refused(peer)
			conn.Close()
		}
	}
}

// accepted gives its place back when it is closed.
type accepted struct {
	net.Conn
	once  sync.Once
	leave func()
}

func (a *accepted) Close() error {
	err := a.Conn.Close()
	a.once.Do(a.leave)
	return err
}
