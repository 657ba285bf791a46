package modbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// connectTimeout bounds the making of a connection; a mobile line needs longer
// for it than for an answer.
const connectTimeout = 5 * time.Second

// A connectError says that the line could not be connected.
type connectError struct {
	address string
	cause   error
}

func (e *connectError) Error() string { return fmt.Sprintf("connect to %s: %v", e.address, e.cause) }
func (e *connectError) Unwrap() error { return e.cause }

// tcp carries requests over one Modbus TCP connection, one at a time. It is not
// safe for concurrent use.
type tcp struct {
	address string // host:port
	timeout time.Duration
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	stale   func() // an answer to another request was discarded
	opened  func() // a connection was made

	conn   net.Conn
	reader *bufio.Reader
}

func newTCP(address string, timeout time.Duration, m *metrics) *tcp {
	dialer := &net.Dialer{KeepAlive: 15 * time.Second}
	return &tcp{
		address: address, timeout: timeout, dial: dialer.DialContext,
		stale: m.stale.Inc, opened: m.connections.Inc,
		reader: bufio.NewReaderSize(nil, maxFrameBytes),
	}
}

// Open connects where there is no connection. Its error is a *connectError.
func (t *tcp) Open(ctx context.Context) error {
	if t.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	conn, err := t.dial(ctx, "tcp", t.address)
	if err != nil {
		return &connectError{t.address, err}
	}
	t.opened()
	t.conn = conn
	t.reader.Reset(conn)
	return nil
}

// Exchange sends a read request and returns its answer. Every error closes the
// connection: what may still arrive belongs to nobody. A connection that was
// used before and proves to be closed is made anew once, because peers drop
// idle connections, and some drop them after each answer; a read may be
// repeated.
func (t *tcp) Exchange(ctx context.Context, request []byte) ([]byte, error) {
	used := t.conn != nil
	answer, err := t.attempt(ctx, request)
	if used && err != nil && ctx.Err() == nil && reasonOf(err) == reasonClosed {
		answer, err = t.attempt(ctx, request)
	}
	return answer, err
}

func (t *tcp) attempt(ctx context.Context, request []byte) ([]byte, error) {
	if err := t.Open(ctx); err != nil {
		return nil, err
	}
	answer, err := t.exchange(ctx, request)
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("no answer within %s: %w", t.timeout, err)
	}
	t.Close()
	return nil, err
}

func (t *tcp) exchange(ctx context.Context, request []byte) ([]byte, error) {
	conn := t.conn
	if err := conn.SetDeadline(time.Now().Add(t.timeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	return readAnswer(t.reader, request, t.stale)
}

// Close ends the connection; the next request makes a new one.
func (t *tcp) Close() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
}
