package spool

import (
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
)

// A way leads from a port to another one, which may be changed.
type way struct {
	listener net.Listener
	change   func([]byte) []byte // what the server says, also after a client's CONNECT

	mu    sync.Mutex
	to    int // 0: nowhere
	conns []net.Conn
}

func forward(t *testing.T, to int) *way {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &way{listener: listener, to: to, change: func(text []byte) []byte { return text }}
	var group sync.WaitGroup
	group.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			group.Go(func() { w.serve(client) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		w.lead(0)
		group.Wait()
	})
	return w
}

func (w *way) url() string { return "nats://" + w.listener.Addr().String() }

// lead ends all connections and leads the next ones elsewhere.
func (w *way) lead(to int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.to = to
	for _, conn := range w.conns {
		conn.Close()
	}
	w.conns = nil
}

func (w *way) serve(client net.Conn) {
	defer client.Close()
	w.mu.Lock()
	to := w.to
	if to == 0 {
		w.mu.Unlock()
		return
	}
	backend, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", to))
	if err != nil {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, client, backend)
	w.mu.Unlock()
	defer backend.Close()
	var group sync.WaitGroup
	group.Go(func() {
		_, _ = io.Copy(backend, client)
		backend.Close()
	})
	for said := make([]byte, 64<<10); ; {
		n, err := backend.Read(said)
		if err == nil {
			_, err = client.Write(w.change(said[:n]))
		}
		if err != nil {
			break
		}
	}
	client.Close()
	group.Wait()
}
