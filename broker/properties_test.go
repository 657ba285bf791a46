package broker

import (
	"bytes"
	"slices"
	"testing"
)

func TestPropertiesThatComeTwice(t *testing.T) {
	expiry, user, response := []byte{0x02, 0, 0, 0, 9}, append([]byte{0x26}, append(text("k"), text("v")...)...), append([]byte{0x08}, text("r/s")...)
	properties := func(all ...[]byte) []byte {
		b := bytes.Join(all, nil)
		return append([]byte{byte(len(b))}, b...)
	}
	connect := func(version, flags byte, rest ...[]byte) []byte {
		return packet(0x10, append([][]byte{text("MQTT"), {version, flags, 0, 60}}, rest...)...)
	}
	plain := connect(5, 2, properties(), text("a"))
	session := []byte{0x11, 0, 0, 0, 1}
	for i, c := range []struct {
		packet []byte
		want   bool
	}{
		{connect(5, 2, properties(session, session), text("a")), true},
		{connect(5, 2, properties(session, user, user), text("a")), false},
		{connect(5, 6, properties(session), text("a"), properties(expiry, response, expiry), text("t"), text("p")), true},
		{connect(5, 6, properties(session), text("a"), properties(expiry, response), text("t"), text("p")), false},
		{connect(5, 2, properties(), text("a"), []byte{2, 1, 0, 1, 0}), false}, // no will
		{packet(0x30, text("t"), properties(expiry, expiry), []byte("x")), true},
		{packet(0x30, text("t"), properties(expiry, response, user, user), expiry, expiry), false},
		{packet(0x32, text("t"), []byte{0, 1}, properties(response, response)), true},
		{packet(0x30, text("t"), properties(), properties(expiry, expiry)), false}, // payload
		{packet(0x82, []byte{0, 1}, properties([]byte{0x0b, 0x80, 1}, []byte{0x0b, 1}), text("t"), []byte{0}), true},
		{packet(0x40, []byte{0, 1, 0}, properties(user, user)), false},
		{packet(0xe0, []byte{0}, properties(session, session)), true},
		{packet(0xe0, []byte{0}), false},
		{packet(0xc0), false},
		{packet(0x30, text("t"), []byte{0xff, 0xff, 0xff, 0xff, 0xff}), false},
		{packet(0x30, text("t"), properties([]byte{0x7f, 0x7f})), false},
	} {
		for _, piece := range []int{1, 3, 1 << 10} {
			f := framer{}
			all := append(bytes.Clone(plain), c.packet...)
			if c.packet[0] == 0x10 {
				all = c.packet
			}
			for part := range slices.Chunk(all, piece) {
				f.read(part, 1<<20)
			}
			if f.doubled != c.want {
				t.Errorf("%d: % x in pieces of %d: %t, want %t", i, c.packet, piece, f.doubled, c.want)
			}
		}
	}
	old := framer{}
	old.read(connect(4, 2, text("a")), 1<<20)
	old.read(packet(0x30, text("t"), properties(expiry, expiry)), 1<<20)
	if old.doubled {
		t.Error("MQTT 3.1.1 has no properties")
	}
}
