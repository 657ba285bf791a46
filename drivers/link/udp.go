package link

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
)

// udpBuffer is what the system is asked to keep of datagrams that we have not
// yet read; it grants what net.core.rmem_max allows.
const udpBuffer = 4 << 20

// maxDatagram is the most that a UDP datagram carries over IPv4 and IPv6.
const maxDatagram = 65535

type datagrams struct {
	conn  *net.UDPConn
	o     Options
	peers map[netip.Addr]*sender
	clock uint64
}

type sender struct {
	peer Peer
	used uint64 // the clock's value at its newest datagram
}

func bind(ctx context.Context, t Target, o Options) (Line, error) {
	var lc net.ListenConfig
	pc, err := lc.ListenPacket(ctx, "udp", t.Address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", t, err)
	}
	conn := pc.(*net.UDPConn) // "udp" always gives one
	_ = conn.SetReadBuffer(udpBuffer)
	return &datagrams{conn: conn, o: o, peers: map[netip.Addr]*sender{}}, nil
}

func (d *datagrams) Addr() string { return d.conn.LocalAddr().String() }

func (d *datagrams) Run(ctx context.Context, join Join) error {
	stop := context.AfterFunc(ctx, func() { d.conn.Close() })
	defer stop()
	defer d.conn.Close()
	defer func() {
		for _, s := range d.peers {
			s.peer.Pause(true)
		}
	}()
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := d.conn.ReadFromUDPAddrPort(buf)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read from %s: %w", d.Addr(), err)
		}
		d.deliver(buf[:n], d.peer(from.Addr(), join))
	}
}

// deliver cuts one datagram into lines. The end of the datagram ends its last
// line: a line never goes on in the next datagram.
func (d *datagrams) deliver(b []byte, p Peer) {
	for len(b) > 0 {
		line, rest, _ := bytes.Cut(b, []byte{'\n'})
		b = rest
		line = bytes.TrimSuffix(line, []byte{'\r'})
		switch {
		case len(line) > d.o.MaxLine:
			p.TooLong(line[:d.o.MaxLine])
		case len(line) > 0:
			p.Line(line)
		}
	}
	p.Pause(false)
}

// peer returns the sender's Peer. A sender is known by its address without the
// port, for some open a new socket for every datagram. With more than MaxPeers senders the one that
// was silent for longest is forgotten.
func (d *datagrams) peer(from netip.Addr, join Join) Peer {
	d.clock++
	if s := d.peers[from]; s != nil {
		s.used = d.clock
		return s.peer
	}
	if len(d.peers) >= d.o.MaxPeers {
		var oldest netip.Addr
		least := d.clock
		for a, s := range d.peers {
			if s.used < least {
				least, oldest = s.used, a
			}
		}
		d.o.Refused(oldest.String())
		d.peers[oldest].peer.Pause(true)
		delete(d.peers, oldest)
	}
	s := &sender{peer: join(from.String()), used: d.clock}
	d.peers[from] = s
	return s.peer
}
