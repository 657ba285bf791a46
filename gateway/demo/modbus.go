package demo

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Modbus Application Protocol V1.1b3 and Modbus Messaging on TCP/IP V1.0b.
const (
	readHolding       = 0x03
	exceptionFlag     = 0x80
	illegalFunction   = 0x01
	illegalAddress    = 0x02
	illegalValue      = 0x03
	noSuchUnit        = 0x0B // gateway target device failed to respond
	headerBytes       = 7    // MBAP: transaction, protocol, length, unit
	maxPDUBytes       = 253
	maxReadRegisters  = 125
	maxModbusConns    = 16
	modbusIdleTimeout = 2 * time.Minute
)

// A ModbusServer answers Modbus TCP: function 03 over the registers that were
// set, exceptions for everything else. It serves up to 16 connections and
// closes one that is silent for two minutes. It is safe for concurrent use.
type ModbusServer struct {
	listener  net.Listener
	mu        sync.Mutex
	registers map[registerKey]uint16
	units     map[byte]bool
}

type registerKey struct {
	unit    byte
	address uint16
}

// NewModbusServer listens on the address, such as 127.0.0.1:5020.
func NewModbusServer(address string) (*ModbusServer, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for Modbus on %s: %w", address, err)
	}
	return &ModbusServer{listener: listener, registers: map[registerKey]uint16{}, units: map[byte]bool{}}, nil
}

// Addr returns the address that the server listens on.
func (s *ModbusServer) Addr() net.Addr { return s.listener.Addr() }

// Close stops listening. Run does it as well.
func (s *ModbusServer) Close() error { return s.listener.Close() }

// Set puts values into a unit's registers from address on. A reader sees all of
// them or none.
func (s *ModbusServer) Set(unit byte, address uint16, values ...uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[unit] = true
	for i, v := range values {
		s.registers[registerKey{unit, address + uint16(i)}] = v
	}
}

// Run serves until ctx ends and waits for its connections; nil then.
func (s *ModbusServer) Run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	slots := make(chan struct{}, maxModbusConns)
	for {
		conn, err := s.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close()
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept Modbus connections on %s: %w", s.Addr(), err)
		}
		select {
		case slots <- struct{}{}:
		default:
			conn.Close() // over the bound; the client tries again
			continue
		}
		conns.Go(func() {
			defer func() { <-slots }()
			s.serve(ctx, conn)
		})
	}
}

// serve answers one connection until it ends, speaks nonsense or is silent.
func (s *ModbusServer) serve(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	frame := make([]byte, headerBytes+maxPDUBytes)
	for {
		if conn.SetDeadline(time.Now().Add(modbusIdleTimeout)) != nil {
			return
		}
		n, err := readFrame(conn, frame)
		if err != nil {
			return // the end of the connection is the client's affair
		}
		answer := s.answer(frame[:n])
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}

var errNotModbus = errors.New("not a Modbus TCP frame")

// readFrame reads one frame and returns its length. A stream that is not Modbus
// TCP cannot be read on: there is nothing to find the next frame by.
func readFrame(r io.Reader, frame []byte) (int, error) {
	if _, err := io.ReadFull(r, frame[:headerBytes]); err != nil {
		return 0, err
	}
	protocol, length := binary.BigEndian.Uint16(frame[2:]), int(binary.BigEndian.Uint16(frame[4:]))
	if protocol != 0 || length < 2 || length > maxPDUBytes+1 { // the length counts the unit
		return 0, errNotModbus
	}
	n := headerBytes + length - 1
	_, err := io.ReadFull(r, frame[headerBytes:n])
	return n, err
}

// answer returns the answer to a whole frame.
func (s *ModbusServer) answer(frame []byte) []byte {
	unit, pdu := frame[6], frame[headerBytes:]
	out := make([]byte, headerBytes, headerBytes+2+2*maxReadRegisters)
	copy(out, frame[:headerBytes])
	values, exception := s.read(unit, pdu)
	if exception != 0 {
		out = append(out, pdu[0]|exceptionFlag, exception)
	} else {
		out = append(out, readHolding, byte(2*len(values)))
		for _, v := range values {
			out = binary.BigEndian.AppendUint16(out, v)
		}
	}
	binary.BigEndian.PutUint16(out[4:], uint16(len(out)-headerBytes+1))
	return out
}

// read carries out a request and returns an exception code where it cannot.
func (s *ModbusServer) read(unit byte, pdu []byte) ([]uint16, byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.units[unit] {
		return nil, noSuchUnit
	}
	if pdu[0] != readHolding {
		return nil, illegalFunction
	}
	if len(pdu) != 5 {
		return nil, illegalValue
	}
	address, count := int(binary.BigEndian.Uint16(pdu[1:])), int(binary.BigEndian.Uint16(pdu[3:]))
	if count < 1 || count > maxReadRegisters {
		return nil, illegalValue
	}
	if address+count > 1<<16 {
		return nil, illegalAddress
	}
	values := make([]uint16, count)
	for i := range values {
		v, ok := s.registers[registerKey{unit, uint16(address + i)}]
		if !ok {
			return nil, illegalAddress
		}
		values[i] = v
	}
	return values, 0
}
