package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// keepAlive finds a dead peer behind a broken mobile line within two minutes.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 30 * time.Second, Interval: 15 * time.Second, Count: 6}

// A client is a stream that we opened, read as lines of text.
type client struct {
	stream Stream
	addr   string
	o      Options
}

func dial(ctx context.Context, t Target, o Options) (Line, error) {
	stream, err := Dial(ctx, t, o)
	if err != nil {
		return nil, err
	}
	addr := t.Address
	if conn, ok := stream.(net.Conn); ok {
		addr = conn.RemoteAddr().String()
	}
	return &client{stream: stream, addr: addr, o: o}, nil
}

func (c *client) Addr() string { return c.addr }

func (c *client) Run(ctx context.Context, join Join) error {
	err := converse(ctx, c.stream, c.o, join(c.Addr()))
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.As(err, new(*absence)):
		return err // it names the device
	case errors.Is(err, io.EOF):
		return fmt.Errorf("read from %s: the other side closed the connection", c.Addr())
	}
	return fmt.Errorf("read from %s: %w", c.Addr(), err)
}

// converse delivers a stream's lines until it ends or the context does,
// and closes it.
func converse(ctx context.Context, conn Stream, o Options, peer Peer) error {
	// Closing is what ends a blocked read when the context ends.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	defer peer.Pause(true)
	lines := NewLineReader(conn, o.MaxLine)
	for {
		if o.Idle > 0 {
			if err := conn.SetReadDeadline(time.Now().Add(o.Idle)); err != nil {
				return err
			}
		}
		err := lines.Burst(peer.Line, peer.TooLong)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("silent for %s", o.Idle)
		}
		if err != nil {
			return err
		}
		peer.Pause(false)
	}
}

type server struct {
	listener net.Listener
	o        Options
}

func listen(ctx context.Context, t Target, o Options) (Line, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive}
	l, err := lc.Listen(ctx, "tcp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", t, err)
	}
	return &server{listener: l, o: o}, nil
}

func (s *server) Addr() string { return s.listener.Addr().String() }

func (s *server) Run(ctx context.Context, join Join) error {
	ctx, cancel := context.WithCancel(ctx)
	var talkers sync.WaitGroup
	defer talkers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	defer s.listener.Close()

	room := make(chan struct{}, s.o.MaxPeers)
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept on %s: %w", s.Addr(), err)
		}
		select {
		case room <- struct{}{}:
		default:
			s.o.Refused(conn.RemoteAddr().String())
			conn.Close()
			continue
		}
		talkers.Go(func() {
			defer func() { <-room }()
			// How a single connection ends is its own matter: the peer is told by
			// Pause, the listener goes on.
			_ = converse(ctx, conn, s.o, join(conn.RemoteAddr().String()))
		})
	}
}
