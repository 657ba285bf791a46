package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestPacketsComeInPieces cuts what a client sends at every place, and fills the
// inbox in between: each message is taken once, in order, whether it goes through
// mochi or not.
func TestPacketsComeInPieces(t *testing.T) {
	for _, version := range []byte{4, 5} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			h := newHouse(t, loopback())
			w := h.connect(t, hello{version: version, id: "a"})
			stream := func() []byte {
				var out []byte
				for i, p := range []struct {
					first          byte
					topic, payload string
				}{
					{2, "telemetry/d/k", `{"a":1}`},                                            // of a topic that may be new
					{2, "telemetry/d/k", `{"a":2}`},                                            // quick
					{0, "telemetry/d/k", `{"a":3}`},                                            // quick, QoS 0
					{3, "telemetry/d/k", `{"a":4}`},                                            // retained
					{4, "telemetry/d/k", `{"a":5}`},                                            // QoS 2
					{2, "telemetry/d/k", `{"a":6,"w":"` + strings.Repeat("x", 200) + `"}`},     // a header of two bytes
					{2, "telemetry/d/k", `{"a":7` + strings.Repeat(" ", 3*inboxBytes/2) + `}`}, // larger than the inbox
					{2, "chat/x", "no telemetry"},
					{2, "telemetry/d/k", `{"a":8}`},
				} {
					out = append(out, w.publication(p.first, uint16(i+1), p.topic, p.payload)...)
				}
				return append(out, 0x62, 2, 0, 5, 0xc0, 0) // PUBREL, PINGREQ
			}()
			answers := func() { // of which those to the last three packets come in any order
				t.Helper()
				w.wants("40 0001", "40 0002", "40 0004", "50 0005", "40 0006", "40 0007", "40 0008")
				var rest []string
				for range 3 {
					first, body := w.packet()
					rest = append(rest, fmt.Sprintf("%02x %x", first, body))
				}
				if slices.Sort(rest); strings.Join(rest, "|") != "40 0009|70 0005|d0 " {
					t.Fatalf("answers %s", rest)
				}
			}
			rounds := 0
			for at := 0; at < len(stream); at++ {
				if at > 400 && at < len(stream)-100 && at%509 != 0 {
					continue
				}
				w.send(stream[:at])
				w.send(stream[at:])
				answers()
				rounds++
			}
			var want []string
			for range rounds {
				for a := 1; a <= 8; a++ {
					if a == 6 {
						want = append(want, "d/k a=6 w=\""+strings.Repeat("x", 200)+"\"")
						continue
					}
					want = append(want, fmt.Sprintf("d/k a=%d", a))
				}
			}
			h.wants(t, want...)
			h.counts(t, "haidang_broker_messages_total", "family=telemetry,result=accepted", float64(8*rounds))
		})
	}
}
