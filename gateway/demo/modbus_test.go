package demo

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/goburrow/modbus"
)

// startModbus runs a server until the test ends.
func startModbus(t *testing.T) *ModbusServer {
	t.Helper()
	s, err := NewModbusServer("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return s
}

func modbusClient(t *testing.T, s *ModbusServer, unit byte) modbus.Client {
	t.Helper()
	h := modbus.NewTCPClientHandler(s.Addr().String())
	h.SlaveId = unit
	h.Timeout = 5 * time.Second
	t.Cleanup(func() { h.Close() })
	return modbus.NewClient(h)
}

func TestModbusServerAnswersAsASlave(t *testing.T) {
	s := startModbus(t)
	s.Set(1, 0x01F4, 10, 20, 0xFFFF)
	s.Set(1, 0xFFFF, 7)
	for _, c := range []struct {
		name           string
		unit           byte
		address, count uint16
		want           []byte
		exception      byte
	}{
		{name: "block", unit: 1, address: 0x01F4, count: 3, want: []byte{0, 10, 0, 20, 0xFF, 0xFF}},
		{name: "last register", unit: 1, address: 0xFFFF, count: 1, want: []byte{0, 7}},
		{name: "behind the last register", unit: 1, address: 0xFFFF, count: 2, exception: illegalAddress},
		{name: "half outside", unit: 1, address: 0x01F6, count: 2, exception: illegalAddress},
		{name: "other unit", unit: 2, address: 0x01F4, count: 1, exception: noSuchUnit},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := modbusClient(t, s, c.unit).ReadHoldingRegisters(c.address, c.count)
			var exception *modbus.ModbusError
			if errors.As(err, &exception) && exception.ExceptionCode == c.exception {
				return
			}
			if err != nil || c.exception != 0 || string(got) != string(c.want) {
				t.Errorf("got % x, %v; want % x, exception %d", got, err, c.want, c.exception)
			}
		})
	}
	if _, err := modbusClient(t, s, 1).ReadInputRegisters(0x01F4, 1); err == nil {
		t.Error("function 04 was answered; the station knows 03 only")
	}
}

// TestModbusServerOnTheWire sends frames that a well-behaved client would not.
func TestModbusServerOnTheWire(t *testing.T) {
	s := startModbus(t)
	s.Set(1, 0, 42)
	for _, c := range []struct {
		name string
		send []byte
		want []byte // none: the server hangs up
	}{
		{"quantity 0", []byte{0, 9, 0, 0, 0, 6, 1, 3, 0, 0, 0, 0}, []byte{0, 9, 0, 0, 0, 3, 1, 0x83, 3}},
		{"quantity 126", []byte{0, 9, 0, 0, 0, 6, 1, 3, 0, 0, 0, 126}, []byte{0, 9, 0, 0, 0, 3, 1, 0x83, 3}},
		{"short request", []byte{0, 9, 0, 0, 0, 4, 1, 3, 0, 0}, []byte{0, 9, 0, 0, 0, 3, 1, 0x83, 3}},
		{"write", []byte{0, 9, 0, 0, 0, 6, 1, 6, 0, 0, 0, 1}, []byte{0, 9, 0, 0, 0, 3, 1, 0x86, 1}},
		{"good", []byte{0xAB, 0xCD, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1}, []byte{0xAB, 0xCD, 0, 0, 0, 5, 1, 3, 2, 0, 42}},
		{"not Modbus", []byte("GET / HTTP/1.1\r\n\r\n"), nil},
		{"length 0", []byte{0, 9, 0, 0, 0, 0, 1}, nil},
		{"length 300", []byte{0, 9, 0, 0, 1, 44, 1}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("tcp", s.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(5 * time.Second))
			if _, err := conn.Write(c.send); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, len(c.want))
			if len(c.want) == 0 {
				got = make([]byte, 1)
			}
			n, err := io.ReadFull(conn, got)
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Fatal("no answer and no hang-up")
			}
			if string(got[:n]) != string(c.want) {
				t.Errorf("got % x, want % x", got[:n], c.want)
			}
		})
	}
}

// TestModbusReadersSeeWholeBlocks sets a block while others read it: its
// registers are always equal.
func TestModbusReadersSeeWholeBlocks(t *testing.T) {
	s := startModbus(t)
	s.Set(1, 100, make([]uint16, 40)...)
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for v := uint16(1); ; v++ {
			select {
			case <-stop:
				return
			default:
			}
			block := make([]uint16, 40)
			for i := range block {
				block[i] = v
			}
			s.Set(1, 100, block...)
		}
	})
	client := modbusClient(t, s, 1)
	for range 300 {
		got, err := client.ReadHoldingRegisters(100, 40)
		if err != nil {
			t.Fatal(err)
		}
		first := binary.BigEndian.Uint16(got)
		for i := 0; i < len(got); i += 2 {
			if v := binary.BigEndian.Uint16(got[i:]); v != first {
				t.Fatalf("register %d is %d and register 0 is %d", i/2, v, first)
			}
		}
	}
	close(stop)
	writer.Wait()
}

func TestModbusServerBoundsItsConnections(t *testing.T) {
	s := startModbus(t)
	s.Set(1, 0, 1)
	for range maxModbusConns {
		if _, err := modbusClient(t, s, 1).ReadHoldingRegisters(0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := modbusClient(t, s, 1).ReadHoldingRegisters(0, 1); err == nil {
		t.Errorf("connection %d was served", maxModbusConns+1)
	}
}

// FuzzModbusAnswer: whatever a client sends, a frame is read within its own
// length and the answer is one whole frame to the same transaction and unit.
func FuzzModbusAnswer(f *testing.F) {
	f.Add([]byte{0, 9, 0, 0, 0, 6, 1, 3, 1, 0xF4, 0, 14})
	f.Add([]byte{0, 9, 0, 0, 0, 2, 1, 3})
	s := &ModbusServer{registers: map[registerKey]uint16{}, units: map[byte]bool{}}
	s.Set(1, 0x01F4, make([]uint16, maxReadRegisters)...)
	f.Fuzz(func(t *testing.T, stream []byte) {
		frame := make([]byte, headerBytes+maxPDUBytes)
		n, err := readFrame(bytes.NewReader(stream), frame)
		if err != nil {
			return
		}
		if n > len(stream) {
			t.Fatalf("a frame of %d bytes from %d", n, len(stream))
		}
		out := s.answer(frame[:n])
		if !bytes.Equal(out[:4], frame[:4]) || out[6] != frame[6] || int(binary.BigEndian.Uint16(out[4:])) != len(out)-6 ||
			len(out) > headerBytes+maxPDUBytes || out[7]&^exceptionFlag != frame[7]&^exceptionFlag {
			t.Fatalf("% x is answered % x", frame[:n], out)
		}
	})
}
