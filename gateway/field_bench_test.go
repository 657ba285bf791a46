package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// BenchmarkField has one real process poll 1,000 Modbus units on ten lines and
// follow 10,000 vessels, with rules and the embedded InfluxDB, and prints its
// memory and its goroutines once all have been heard.
func BenchmarkField(b *testing.B) {
	const lines, units, vessels = 10, 100, 10_000
	for b.Loop() {
		var text strings.Builder
		text.WriteString("modbus:\n")
		for l := range lines {
			fmt.Fprintf(&text, "  - {name: line-%d, connect: \"tcp://%s\", interval: 10s, units: [", l, instruments(b))
			for u := range units {
				fmt.Fprintf(&text, "{id: %d, device: unit-%d-%d, profile: weather-485}, ", u+1, l, u+1)
			}
			text.WriteString("]}\n")
		}
		g := prepare(b, text.String())
		g.start()
		sea, err := net.Dial("tcp", g.ports.nmea)
		if err != nil {
			b.Fatal(err)
		}
		for i := range vessels {
			if _, err := io.WriteString(sea, positionSentence(574_000_000+i, 64_000_000+500*i, 9_900_000)); err != nil {
				b.Fatal(err)
			}
		}
		eventually(b, "every vessel and every unit is heard", time.Minute, func() bool {
			return g.metric("haidang_ais_vessels") == vessels && g.metric("haidang_rules_devices") >= vessels+lines*units
		})
		b.ReportMetric(g.metric("haidang_rules_devices"), "devices")
		b.ReportMetric(g.metric("go_goroutines"), "goroutines")
		b.ReportMetric(g.statusMiB("VmRSS"), "MiB")
		b.ReportMetric(g.peakMiB(), "peak-MiB")
		_ = sea.Close() // everything was read
		g.stop()
	}
}

// instruments answer reads of registers for every unit, with zeros; they end
// with the benchmark.
func instruments(b *testing.B) (address string) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			b.Cleanup(func() { conn.Close() })
			serving.Go(func() {
				frame, answer := make([]byte, 12), make([]byte, 9+250)
				for {
					if _, err := io.ReadFull(conn, frame); err != nil {
						return
					}
					size := 2 * int(binary.BigEndian.Uint16(frame[10:]))
					copy(answer, frame[:8])
					binary.BigEndian.PutUint16(answer[4:], uint16(3+size))
					answer[8] = byte(size)
					if _, err := conn.Write(answer[:9+size]); err != nil {
						return
					}
				}
			})
		}
	})
	b.Cleanup(func() { listener.Close() })
	return listener.Addr().String()
}

// positionSentence is a class A position report (ITU-R M.1371-5, message 1) of a
// vessel; longitude and latitude are in 1/10,000 minutes.
func positionSentence(mmsi, lon, lat int) string {
	var bits [168]bool
	put := func(at, width, value int) {
		for i := range width {
			bits[at+i] = value>>(width-1-i)&1 == 1
		}
	}
	put(0, 6, 1)
	put(8, 30, mmsi)
	put(42, 8, -128) // rate of turn: not available
	put(50, 10, 85)
	put(61, 28, lon)
	put(89, 27, lat)
	put(116, 12, 900)
	put(128, 9, 90)
	put(137, 6, 30)
	body := "AIVDM,1,1,,A,"
	for i := 0; i < len(bits); i += 6 {
		six := byte(0)
		for _, bit := range bits[i : i+6] {
			six <<= 1
			if bit {
				six |= 1
			}
		}
		if six += 48; six > 87 {
			six += 8
		}
		body += string(rune(six))
	}
	body += ",0"
	sum := byte(0)
	for i := range len(body) {
		sum ^= body[i]
	}
	return fmt.Sprintf("!%s*%02X\r\n", body, sum)
}
