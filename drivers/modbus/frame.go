package modbus

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// The MBAP header: MODBUS on TCP/IP V1.0b, 3.1.3. Transaction, protocol 0,
// length of what follows, unit.
const (
	headerBytes   = 7
	maxFrameBytes = 260
	maxStale      = 16 // answers to earlier requests that one request puts up with
)

// errBadAnswer is wrapped by every error about bytes that are no answer to the
// request.
var errBadAnswer = errors.New("bad answer")

// readAnswer reads the answer to request, both with MBAP headers, and skips
// answers to other transactions. What it returns without an error is an
// exception or has exactly the bytes that were asked for.
func readAnswer(r io.Reader, request []byte, stale func()) ([]byte, error) {
	for range maxStale + 1 {
		answer, err := readFrame(r)
		if err != nil {
			return nil, err
		}
		if [2]byte(answer) != [2]byte(request) {
			stale()
			continue
		}
		if answer[6] != request[6] {
			return nil, fmt.Errorf("%w: it is from unit %d, expected %d", errBadAnswer, answer[6], request[6])
		}
		return answer, checkAnswer(request[headerBytes:], answer[headerBytes:])
	}
	return nil, fmt.Errorf("%w: more than %d answers to other transactions", errBadAnswer, maxStale)
}

// A tornError is that of a connection in the middle of a frame: what comes
// next on it begins nowhere.
type tornError struct{ cause error }

func (e *tornError) Error() string { return "in the middle of a frame: " + e.cause.Error() }
func (e *tornError) Unwrap() error { return e.cause }

// A silenceError is that of a unit that did not answer. Which socket waited is
// nothing to who reads of it.
type silenceError struct{ within time.Duration }

func (e *silenceError) Error() string { return fmt.Sprintf("no answer within %s", e.within) }
func (e *silenceError) Unwrap() error { return os.ErrDeadlineExceeded }

// errHungUp is io.EOF in words.
var errHungUp = errors.New("the other side closed the connection")

// inWords says what io.EOF of a connection means.
func inWords(err error) error {
	if errors.Is(err, io.EOF) {
		return errHungUp
	}
	return err
}

func readFrame(r io.Reader) ([]byte, error) {
	var header [headerBytes]byte
	if n, err := io.ReadFull(r, header[:]); err != nil {
		if n > 0 {
			err = &tornError{err}
		}
		return nil, err
	}
	if protocol := binary.BigEndian.Uint16(header[2:]); protocol != 0 {
		return nil, fmt.Errorf("%w: protocol id %d, expected 0 (Modbus)", errBadAnswer, protocol)
	}
	// The length counts the unit and the PDU; an exception, the shortest, has 3.
	length := int(binary.BigEndian.Uint16(header[4:]))
	if length < 3 || length > maxFrameBytes-headerBytes+1 {
		return nil, fmt.Errorf("%w: length %d is not in 3..%d", errBadAnswer, length, maxFrameBytes-headerBytes+1)
	}
	frame := make([]byte, headerBytes-1+length)
	copy(frame, header[:])
	if _, err := io.ReadFull(r, frame[headerBytes:]); err != nil {
		return nil, &tornError{err}
	}
	return frame, nil
}

// follows checks what has arrived behind an answer: nothing, or whole answers to
// earlier requests and the beginning of one. Modbus TCP has no checksum: when an
// answer was cut short, the beginning of a late one completes it, and all that
// tells is that the rest of that is no frame.
func follows(rest, request []byte) error {
	for len(rest) >= 2 {
		ago := binary.BigEndian.Uint16(request) - binary.BigEndian.Uint16(rest)
		wrong := ago > 1<<15 // it was never sent
		if len(rest) >= 4 {
			wrong = wrong || rest[2] != 0 || rest[3] != 0
		}
		if wrong {
			return fmt.Errorf("%w: what follows it is no frame", errBadAnswer)
		}
		if len(rest) < 6 {
			return nil
		}
		length := int(binary.BigEndian.Uint16(rest[4:]))
		if length < 3 || length > maxFrameBytes-headerBytes+1 {
			return fmt.Errorf("%w: what follows it is no frame", errBadAnswer)
		}
		if len(rest) <= headerBytes-1+length {
			return nil
		}
		rest = rest[headerBytes-1+length:]
	}
	return nil
}

// Functions: MODBUS Application Protocol V1.1b3, 6.
const (
	readCoils      = 1
	readDiscrete   = 2
	readHolding    = 3
	readInput      = 4
	writeCoil      = 5
	writeRegister  = 6
	writeCoils     = 15
	writeRegisters = 16
)

// reads reports whether a function changes nothing.
func reads(function byte) bool { return function >= readCoils && function <= readInput }

// answerBytes is how many bytes of data answer a read of so many registers, or
// bits.
func answerBytes(function byte, count int) int {
	if function <= readDiscrete {
		return (count + 7) / 8
	}
	return 2 * count
}

// checkAnswer checks an answer PDU against its request. It serves every medium.
func checkAnswer(request, answer []byte) error {
	function := request[0]
	if answer[0] == function|0x80 {
		if len(answer) != 2 || answer[1] == 0 {
			return fmt.Errorf("%w: an exception of %d bytes, expected function and code", errBadAnswer, len(answer))
		}
		return nil
	}
	if answer[0] != function {
		return fmt.Errorf("%w: function %d, expected %d", errBadAnswer, answer[0], function)
	}
	if !reads(function) {
		// Writes are answered by their first five bytes: function, address, and
		// the value or the count (6.5, 6.6, 6.11, 6.12).
		if !bytes.Equal(answer, request[:5]) {
			return fmt.Errorf("%w: % x does not confirm the write % x", errBadAnswer, answer, request[:5])
		}
		return nil
	}
	expected := answerBytes(function, int(binary.BigEndian.Uint16(request[3:])))
	if len(answer) != 2+expected || int(answer[1]) != expected {
		return fmt.Errorf("%w: %d bytes with a byte count of %d, expected %d", errBadAnswer, len(answer)-2, answer[1], expected)
	}
	return nil
}
