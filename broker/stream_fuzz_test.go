package broker

import (
	"net"
	"testing"
	"time"
)

// streams writes what a script says: each two bytes are a packet that is in
// order, and how it is spoilt.
func streams(script []byte, secret string) []byte {
	var out []byte
	w := &wire{version: 4}
	for i := 0; i+1 < len(script) && i < 64; i += 2 {
		op, spoil := script[i], script[i+1]
		if op&0x80 != 0 {
			w.version = 5
		}
		var properties []byte
		if w.version == 5 {
			properties = []byte{0}
		}
		id := []byte{0, op>>2&3 + 1}
		var p []byte
		switch op & 0x1f {
		case 0, 1, 2:
			p = packet(0x10, text("MQTT"), []byte{w.version, 0xc2, 0, 60}, properties, text("a"), text("kim-long"), text(secret))
		case 3:
			p = packet(0x10, text("MQTT"), []byte{w.version, 0xc6, 0, 60}, properties, text("b"), properties, text("telemetry/kim-long/k"), text(`{"a":1}`), text("kim-long"), text(secret))
		case 4, 5, 6:
			p = w.publication(op>>5&3<<1, uint16(id[1]), "telemetry/kim-long/k", `{"a":1}`)
		case 7:
			p = w.publication(2|1, uint16(id[1]), "chat/x", "kept")
		case 8:
			p = w.publication(4, uint16(id[1]), "telemetry/phu-oc/k", `{"a":1}`)
		case 9, 10:
			p = packet(0x82, id, properties, text("warnings/#"), []byte{1}, text("chat/+"), []byte{2})
		case 11:
			p = packet(0x82, id, properties, text("$share/g/warnings/#"), []byte{1}, text("#"), []byte{0})
		case 12:
			p = packet(0xa2, id, properties, text("chat/+"))
		case 13:
			p = packet(0x62, id)
		case 14:
			p = packet(0x50, id)
		case 15:
			p = packet(0x70, id)
		case 16:
			p = packet(0x40, id)
		case 17:
			p = packet(0xe0)
		case 18:
			p = packet(0x32, text("telemetry/kim-long/k"), id, []byte{3, 35, 0, 1}, []byte(`{"a":2}`))
		case 19:
			p = packet(0x32, text(""), id, []byte{3, 35, 0, 1}, []byte(`{"a":3}`))
		default:
			p = packet(0xc0)
		}
		switch spoil & 3 {
		case 1: // a byte is another
			p[int(spoil>>2)%len(p)] ^= spoil
		case 2: // it ends too early
			p = p[:int(spoil>>2)%len(p)]
		}
		out = append(out, p...)
	}
	return out
}

// FuzzStreams drives the whole listener, with accounts, with streams of packets
// of which some are spoilt: no panic, no connection that hangs, and the next
// client is served.
func FuzzStreams(f *testing.F) {
	for _, script := range []string{
		"\x00\x00\x04\x00\x24\x00\x44\x00\x0d\x00", "\x80\x00\x89\x00\x87\x00\x93\x00\x92\x00\x93\x00", "\x03\x00\x09\x00\x0b\x00\x0c\x00\x11\x00",
		"\x83\x00\x88\x00\x8b\x00\x00\x00", "\x00\x00\x04\x05\x04\x06", "\x00\x09\x04\x00", "\x80\x00\x84\x21\x8e\x00\x8f\x00\x90\x00",
	} {
		f.Add([]byte(script))
	}
	g := guard(f, loopback())
	g.Broker.waiting = make(chan struct{}) // wrong secrets are answered at once
	f.Fuzz(func(t *testing.T, script []byte) {
		conn, err := net.Dial("tcp", g.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		_, _ = conn.Write(streams(script, g.secrets["kim-long"])) // the broker may have closed it
		_ = conn.(*net.TCPConn).CloseWrite()
		for b := make([]byte, 4096); err == nil; {
			_, err = conn.Read(b) // until the broker closes it
		}
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Fatalf("the connection stays open after %x", script)
		}
		if g.metric("haidang_broker_panics_total", "") != 0 {
			t.Fatalf("a panic: %s", g.logs)
		}
	})
}
