package console

import (
	"net"
	"sync"
)

// A boundedListener has a bounded number of connections open; further ones wait
// in the system's queue.
type boundedListener struct {
	net.Listener
	slots  chan struct{} // one taken for each connection
	closed chan struct{}
	close  func() error
}

func boundListener(l net.Listener, connections int) *boundedListener {
	b := &boundedListener{Listener: l, slots: make(chan struct{}, connections), closed: make(chan struct{})}
	b.close = sync.OnceValue(func() error {
		close(b.closed)
		return l.Close()
	})
	return b
}

// Accept waits for room and then for a connection.
func (b *boundedListener) Accept() (net.Conn, error) {
	select {
	case b.slots <- struct{}{}:
	case <-b.closed:
		return nil, net.ErrClosed
	}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err
	}
	return &boundedConn{Conn: conn, leave: sync.OnceFunc(func() { <-b.slots })}, nil
}

// Close ends Accept.
func (b *boundedListener) Close() error { return b.close() }

type boundedConn struct {
	net.Conn
	leave func()
}

// Close makes room for another connection.
func (c *boundedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
