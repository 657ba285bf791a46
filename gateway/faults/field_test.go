package faults

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	ais "github.com/BertoldVdb/go-ais"
)

const modbusProfile = `
name: counter
title: counter
source: the faults harness
registers:
  - {value: count.n, address: 0, type: uint32}
`

// A counter is a Modbus TCP instrument whose register is how often it was read.
type counter struct {
	listener net.Listener
	answered atomic.Int64
}

func newCounter(t testing.TB) *counter {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{listener: listener}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(t.Context(), func() { conn.Close() })
			serving.Go(func() { defer stop(); defer conn.Close(); c.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); serving.Wait() })
	return c
}

func (c *counter) serve(conn net.Conn) {
	var request [12]byte
	for {
		if _, err := io.ReadFull(conn, request[:]); err != nil {
			return
		}
		answer := append([]byte(nil), request[:8]...)
		answer[5] = 7 // unit, function, bytes and four of them
		answer = binary.BigEndian.AppendUint32(append(answer, 4), uint32(c.answered.Add(1)))
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

// config is the section modbus; the profile is in the folder profiles.
func (c *counter) config() string {
	return fmt.Sprintf("[{name: line, connect: \"tcp://%s\", interval: 20ms, units: [{id: 1, device: modbus-counter, profile: counter}]}]", c.listener.Addr())
}

// A vessel sends AIS positions whose longitude is a number, 1/10000 minute.
type vessel struct {
	mmsi uint32
	sent int
}

func (v *vessel) device() string { return fmt.Sprintf("mmsi-%d", v.mmsi) }

// sail sends over one connection after the other until ctx ends.
func (v *vessel) sail(ctx context.Context, address string) {
	codec := ais.CodecNew(false, false)
	codec.FloatWithoutConversion = true
	for ctx.Err() == nil {
		if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			for ctx.Err() == nil {
				if _, err := conn.Write(v.sentence(codec, v.sent+1)); err != nil {
					break
				}
				v.sent++
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
			conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (v *vessel) sentence(codec *ais.Codec, n int) []byte {
	bits := codec.EncodePacket(ais.PositionReport{
		Header: ais.Header{MessageID: 1, UserID: v.mmsi}, Valid: true, RateOfTurn: -128,
		Longitude: ais.FieldLatLonFine(n), Latitude: 16 * 600000, Sog: 50, TrueHeading: 90,
	})
	body := "AIVDM,1,1,,A,"
	for i := 0; i < len(bits); i += 6 {
		var six byte
		for k := i; k < i+6; k++ {
			six <<= 1
			if k < len(bits) {
				six |= bits[k] & 1
			}
		}
		if six > 39 {
			six += 8
		}
		body += string(rune(six + 48))
	}
	body += fmt.Sprint(",", (6-len(bits)%6)%6)
	sum := byte(0)
	for i := range len(body) {
		sum ^= body[i]
	}
	return fmt.Appendf(nil, "!%s*%02X\r\n", body, sum)
}
