package modbus

import (
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"haidang/drivers/link"
)

// A fault is what the server of the tests does wrong with one answer.
type fault int

const (
	right fault = iota
	byteByByte
	twice
	staleFirst       // an answer to an earlier request goes before
	wrongTransaction // the number of another transaction, and nothing else
	wrongUnit
	wrongFunction
	wrongProtocol
	shortCount // fewer registers than were asked for, consistent in itself
	longCount
	lyingCount // the byte count does not match the bytes
	truncated  // the beginning of an answer, then silence
	truncatedClose
	garbageBefore
	zeroLength
	hugeLength
	late // after the client has given up
	silence
	reset
	closed
	flood // more stale answers than a request puts up with
	faults

	// On RTU lines only.
	twiceLater = faults + iota // again some time later
	corrupt                    // one bit is wrong
)

// harmless faults cost nothing: the request succeeds.
func (f fault) harmless() bool { return f <= staleFirst }

// mark is what the register of this address holds: it differs by unit and table.
func mark(unit, function byte, address int) uint16 {
	return uint16(address) ^ uint16(unit)<<9 ^ uint16(function)<<13
}

// A server speaks Modbus TCP with the faults that a test asks for.
type server struct {
	fault    func() fault                                          // for the next answer; nil: right
	register func(unit, function byte, address int) (uint16, byte) // value or exception; nil: mark
	refuse   func(unit, function byte, first, count int) byte      // exception to a whole request; nil: none
	lateness time.Duration

	mu      sync.Mutex
	conns   map[net.Conn]bool
	asked   []request
	earlier [][]byte // answers of all connections, for staleFirst
	written map[[3]int]uint16
	wait    sync.WaitGroup
}

type request struct {
	at       time.Time
	unit     byte
	function byte
	first    int
	count    int
}

// listen serves on a port of loopback until the test ends.
func (s *server) listen(t testing.TB) (address string, stop func()) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.start(conn)
		}
	})
	stop = func() { listener.Close(); s.hangUp(); s.wait.Wait() }
	t.Cleanup(stop)
	return listener.Addr().String(), stop
}

// pipe dials the server without a network, for tests in a bubble of time.
func (s *server) pipe(context.Context) (link.Stream, error) {
	client, conn := net.Pipe()
	s.start(conn)
	return client, nil
}

func (s *server) start(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conns == nil {
		s.conns = map[net.Conn]bool{}
	}
	s.conns[conn] = true
	s.wait.Go(func() { s.serve(conn) })
}

// hangUp closes every connection.
func (s *server) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.conns {
		conn.Close()
	}
}

func (s *server) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.asked...)
}

func (s *server) serve(conn net.Conn) {
	// Answers go through a queue: a pipe has no buffer of its own.
	out := make(chan []byte, 1024)
	over := make(chan struct{})
	s.wait.Go(func() {
		for {
			select {
			case <-over:
				return
			case piece := <-out:
				if _, err := conn.Write(piece); err != nil {
					return
				}
			}
		}
	})
	defer func() {
		close(over)
		conn.Close()
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
	}()
	send := func(pieces ...[]byte) {
		for _, piece := range pieces {
			select {
			case out <- piece:
			default:
			}
		}
	}
	for {
		frame := make([]byte, 6, maxFrameBytes)
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		frame = frame[:6+min(int(frame[5]), maxFrameBytes-6)]
		if _, err := io.ReadFull(conn, frame[6:]); err != nil {
			return
		}
		answer := s.answer(frame)
		what := right
		if s.fault != nil {
			what = s.fault()
		}
		if !s.reply(conn, what, answer, send) {
			return
		}
		s.mu.Lock()
		if s.earlier = append(s.earlier, answer); len(s.earlier) > 40 {
			s.earlier = s.earlier[1:]
		}
		s.mu.Unlock()
	}
}

func (s *server) answer(frame []byte) []byte {
	unit, function := frame[6], frame[7]
	first, count := int(binary.BigEndian.Uint16(frame[8:])), int(binary.BigEndian.Uint16(frame[10:]))
	s.mu.Lock()
	if s.asked = append(s.asked, request{time.Now(), unit, function, first, count}); len(s.asked) > 1<<20 {
		s.asked = s.asked[1<<19:]
	}
	s.mu.Unlock()
	if s.refuse != nil {
		if code := s.refuse(unit, function, first, count); code != 0 {
			return mbap(frame, function|0x80, code)
		}
	}
	if !reads(function) {
		return mbap(frame, s.store(frame[6:])...)
	}
	pdu := []byte{function, 0}
	if function <= 2 {
		pdu = append(pdu, make([]byte, (count+7)/8)...)
	}
	for i := range count {
		value := mark(unit, function, first+i)
		s.mu.Lock()
		written, changed := s.written[[3]int{int(unit), int(function), first + i}]
		s.mu.Unlock()
		if changed {
			value = written
		} else if s.register != nil {
			var code byte
			if value, code = s.register(unit, function, first+i); code != 0 {
				return mbap(frame, function|0x80, code)
			}
		}
		if function <= 2 {
			pdu[2+i/8] |= byte(value&1) << (i % 8)
		} else {
			pdu = binary.BigEndian.AppendUint16(pdu, value)
		}
	}
	pdu[1] = byte(len(pdu) - 2)
	return mbap(frame, pdu...)
}

// store writes registers or coils, as request asks (unit and PDU), and returns
// the PDU of the answer.
func (s *server) store(request []byte) []byte {
	unit, function := int(request[0]), request[1]
	first, second := int(binary.BigEndian.Uint16(request[2:])), binary.BigEndian.Uint16(request[4:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.written == nil {
		s.written = map[[3]int]uint16{}
	}
	switch function {
	case writeCoil:
		s.written[[3]int{unit, readCoils, first}] = second >> 15
	case writeRegister:
		s.written[[3]int{unit, readHolding, first}] = second
	case writeCoils:
		for i := range int(second) {
			s.written[[3]int{unit, readCoils, first + i}] = uint16(request[7+i/8]>>(i%8)) & 1
		}
	case writeRegisters:
		for i := range int(second) {
			s.written[[3]int{unit, readHolding, first + i}] = binary.BigEndian.Uint16(request[7+2*i:])
		}
	default:
		return []byte{function | 0x80, 1}
	}
	return request[1:6]
}

// mbap frames a PDU as the answer to a request.
func mbap(request []byte, pdu ...byte) []byte {
	frame := append([]byte(nil), request[:7]...)
	binary.BigEndian.PutUint16(frame[4:], uint16(len(pdu)+1))
	return append(frame, pdu...)
}

// reply sends the answer with a fault and reports whether the connection goes on.
func (s *server) reply(conn net.Conn, what fault, answer []byte, send func(...[]byte)) bool {
	changed := append([]byte(nil), answer...)
	switch what {
	case right:
		send(answer)
	case byteByByte:
		for i := range answer {
			send(answer[i : i+1])
		}
	case twice:
		send(answer, answer)
	case staleFirst:
		s.mu.Lock()
		if n := len(s.earlier); n > 0 {
			send(s.earlier[n-1])
		}
		s.mu.Unlock()
		send(answer)
	case wrongTransaction:
		changed[0] ^= 0x80
		send(changed)
	case wrongUnit:
		changed[6]++
		send(changed)
	case wrongFunction:
		changed[7] ^= 7
		send(changed)
	case wrongProtocol:
		changed[2] = 1
		send(changed)
	case shortCount:
		less := min(2, answer[8])
		send(mbap(answer, append([]byte{answer[7], answer[8] - less}, answer[9:len(answer)-int(less)]...)...))
	case longCount:
		send(mbap(answer, append([]byte{answer[7], answer[8] + 2, 0, 0}, answer[9:]...)...))
	case lyingCount:
		changed[8] -= 2
		send(changed)
	case truncated, truncatedClose:
		send(answer[:1+rand.IntN(len(answer)-1)])
		return what == truncated || finish(conn, send)
	case garbageBefore:
		send([]byte{0xDE, 0xAD, 0xBE, 0xEF, 0x00}, answer)
	case zeroLength, hugeLength:
		binary.BigEndian.PutUint16(changed[4:], map[fault]uint16{zeroLength: 0, hugeLength: 0xFFFF}[what])
		send(changed)
	case late:
		time.AfterFunc(s.lateness, func() { send(answer) })
	case reset:
		if socket, ok := conn.(*net.TCPConn); ok {
			socket.SetLinger(0)
		}
		return false
	case closed:
		return false
	case flood:
		for i := range maxStale + 1 {
			changed := append([]byte(nil), answer...)
			binary.BigEndian.PutUint16(changed, binary.BigEndian.Uint16(changed)-uint16(i+1))
			send(changed)
		}
		send(answer)
	}
	return true
}

// finish half closes, so that what was sent still arrives before the end.
func finish(conn net.Conn, _ func(...[]byte)) bool {
	if socket, ok := conn.(*net.TCPConn); ok {
		socket.CloseWrite()
	}
	return true
}
