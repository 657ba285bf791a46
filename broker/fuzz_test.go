package broker

import (
	"net"
	"testing"
	"time"
)

// FuzzPackets sends bytes to a broker, alone and behind a CONNECT, which must
// survive them without a panic and serve the next client.
func FuzzPackets(f *testing.F) {
	w := &wire{version: 4}
	connect := packet(0x10, text("MQTT"), []byte{4, 2, 0, 60}, text("a"))
	f.Add(connect)
	f.Add(w.publication(2, 1, "telemetry/d/k", `{"a":1}`))
	f.Add(append(w.publication(4, 1, "telemetry/d/k", `{"a":1}`), 0x62, 2, 0, 1, 0xc0, 0, 0xe0, 0))
	f.Add(packet(0x82, []byte{0, 1}, text("#"), []byte{2}))
	f.Add(packet(0xa2, []byte{0, 1}, text("#")))
	f.Add([]byte{0x40, 2, 0, 1, 0x50, 2, 0, 1, 0x70, 2, 0, 1, 0x62, 2, 0, 1})
	f.Add(packet(0x10, text("MQTT"), []byte{5, 4, 0, 60, 5, 17, 0, 0, 0, 9}, text("a"), []byte{5, 24, 0, 0, 0, 0}, text("telemetry/d/k"), text(`{"a":1}`)))
	h := newHouse(f, loopback())
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, before := range [][]byte{nil, connect, packet(0x10, text("MQTT"), []byte{5, 0, 0, 60, 5, 17, 0, 0, 0, 9}, text("b"))} {
			conn, err := net.Dial("tcp", h.Addr())
			if err != nil {
				t.Fatal(err)
			}
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write(append(before[:len(before):len(before)], b...)) // the broker may have closed it
			_ = conn.(*net.TCPConn).CloseWrite()
			for one := make([]byte, 4096); err == nil; {
				_, err = conn.Read(one) // until the broker closes it
			}
			_ = conn.Close()
			if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
				t.Fatalf("the connection stays open after %x", b)
			}
		}
		if h.metric("haidang_broker_panics_total", "") != 0 {
			t.Fatalf("a panic: %s", h.logs)
		}
	})
}
