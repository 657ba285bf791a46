package broker

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// maxLobby is how many sockets of the WebSocket listener may say what they want at
// a time; those that have are counted as connections.
const maxLobby = 256

// A lobby holds sockets that have not yet asked for a WebSocket. When it is full,
// the oldest goes of the network that has most.
type lobby struct {
	most    int
	dropped func()

	mu      sync.Mutex
	waiting map[net.Conn]time.Time
}

// enter counts a socket in.
func (l *lobby) enter(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting[conn] = time.Now()
	if len(l.waiting) <= l.most {
		return
	}
	of := map[netip.Addr]int{}
	for c := range l.waiting {
		of[networkOf(c.RemoteAddr())]++
	}
	var oldest net.Conn
	for c, since := range l.waiting {
		own, most := of[networkOf(c.RemoteAddr())], 0
		if oldest != nil {
			most = of[networkOf(oldest.RemoteAddr())]
		}
		if own > most || own == most && since.Before(l.waiting[oldest]) {
			oldest = c
		}
	}
	delete(l.waiting, oldest)
	l.dropped()
	_ = oldest.Close() // it has no error that matters
}

// leave counts a socket out.
func (l *lobby) leave(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.waiting, conn)
}

// networkOf is the address that a socket comes from, or the /64 of IPv6, which is
// one customer.
func networkOf(from net.Addr) netip.Addr {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	at := tcp.AddrPort().Addr().Unmap() // a listener of both families says ::ffff:192.0.2.1
	if at.Is6() {
		if prefix, err := at.WithZone("").Prefix(64); err == nil {
			return prefix.Addr()
		}
	}
	return at
}
