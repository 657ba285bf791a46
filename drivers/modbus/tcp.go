package modbus

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"haidang/drivers/link"
)

// tcp carries requests over one Modbus TCP connection, one at a time.
type tcp struct {
	address string // host:port
	timeout time.Duration
	dial    dialer
	stale   func() // an answer to another request was discarded
	opened  func() // a connection was made

	conn   link.Stream
	reader *bufio.Reader
}

func newTCP(e endpoint, timeout time.Duration, m *metrics) *tcp {
	return &tcp{
		address: e.target.Address, timeout: timeout, dial: e.dialer(),
		stale: m.stale.Inc, opened: m.connections.Inc,
		reader: bufio.NewReaderSize(nil, maxFrameBytes),
	}
}

// Open connects where there is no connection.
func (t *tcp) Open(ctx context.Context) error {
	if t.conn != nil {
		return nil
	}
	conn, err := t.dial(ctx)
	if err != nil {
		return &connectError{t.address, rootOf(err)}
	}
	t.opened()
	t.conn = conn
	t.reader.Reset(conn)
	return nil
}

// rootOf drops the words that connectError says as well.
func rootOf(err error) error {
	if inner := errors.Unwrap(err); inner != nil {
		return inner
	}
	return err
}

// Exchange sends a request and returns its answer. A connection that was used
// before and proves to be closed is made anew once, because peers drop idle
// connections, and some drop them after each answer; but only for a read, which
// may be repeated.
func (t *tcp) Exchange(ctx context.Context, request []byte) ([]byte, error) {
	used := t.conn != nil
	answer, err := t.attempt(ctx, request)
	if used && err != nil && ctx.Err() == nil && reads(request[headerBytes]) && reasonOf(err) == reasonClosed {
		answer, err = t.attempt(ctx, request)
	}
	return answer, err
}

func (t *tcp) attempt(ctx context.Context, request []byte) ([]byte, error) {
	if err := t.Open(ctx); err != nil {
		return nil, err
	}
	answer, err := t.exchange(ctx, request)
	var torn *tornError
	switch {
	case err == nil:
		return answer, nil
	case ctx.Err() != nil:
		err = ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		if !errors.As(err, &torn) {
			return nil, &silenceError{t.timeout} // what comes late has another transaction's number
		}
		err = fmt.Errorf("no answer within %s: %w", t.timeout, err)
	}
	t.Close()
	return nil, inWords(err)
}

func (t *tcp) exchange(ctx context.Context, request []byte) ([]byte, error) {
	conn := t.conn
	deadline := time.Now().Add(t.timeout)
	if err := errors.Join(conn.SetWriteDeadline(deadline), conn.SetReadDeadline(deadline)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if n, err := conn.Write(request); err != nil {
		if n > 0 {
			err = &tornError{err}
		}
		return nil, err
	}
	answer, err := readAnswer(t.reader, request, t.stale)
	if err != nil {
		return nil, err
	}
	rest, err := t.reader.Peek(t.reader.Buffered())
	if err == nil {
		err = follows(rest, request)
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// Watch tells nothing: peers drop idle connections, and the next request makes
// a new one.
func (t *tcp) Watch() <-chan error { return nil }

// Close ends the connection; the next request makes a new one.
func (t *tcp) Close() {
	if t.conn != nil {
		t.conn.Close()
		t.conn = nil
	}
}
