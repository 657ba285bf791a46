package broker

import (
	"crypto/tls"
	"net"
	"runtime"
	"sync"
	"time"
)

// A gate lets as many TLS handshakes compute at a time as there are cores. When
// thousands of clients come back at once, each would otherwise take its turn
// between all others: none would finish in time, all would try again, and clients
// that are connected would wait seconds for their acknowledgements.
type gate struct{ places chan struct{} }

func newGate() *gate { return &gate{places: make(chan struct{}, runtime.GOMAXPROCS(0))} }

// A gatedListener makes connections whose handshakes go through the gate.
type gatedListener struct {
	net.Listener
	gate *gate
}

// Accept waits for a connection.
func (l gatedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &gated{Conn: conn, gate: l.gate}, nil
}

// A gated is the socket below TLS. Its place in the gate is taken when the
// client's greeting is there, and given back with the first answer, which is the
// costly one: nobody holds a place by being slow.
type gated struct {
	net.Conn
	gate *gate

	mu    sync.Mutex
	holds bool
}

// enter waits for a place. The client has its time from then on.
func (g *gated) enter() {
	g.gate.places <- struct{}{} // given back soon: nothing in between waits for anybody
	g.mu.Lock()
	g.holds = true
	g.mu.Unlock()
	_ = g.SetDeadline(time.Now().Add(connectTimeout))
}

func (g *gated) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.holds {
		g.holds = false
		<-g.gate.places
	}
}

// Write sends what TLS has to say. A socket whose buffer is full would hold the
// place.
func (g *gated) Write(p []byte) (int, error) {
	g.leave()
	return g.Conn.Write(p)
}

// Read is for what comes after the greeting.
func (g *gated) Read(p []byte) (int, error) {
	g.leave()
	return g.Conn.Read(p)
}

// Close gives the place back of a handshake that failed.
func (g *gated) Close() error {
	g.leave()
	return g.Conn.Close()
}

// throughGate makes handshakes go through the gate, on connections of a
// gatedListener.
func throughGate(c *tls.Config) *tls.Config {
	c = c.Clone()
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if g, ok := hello.Conn.(*gated); ok {
			g.enter()
		}
		if choose == nil {
			return nil, nil
		}
		return choose(hello)
	}
	return c
}
