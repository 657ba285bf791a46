package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
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

func readFrame(r io.Reader) ([]byte, error) {
	var header [headerBytes]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
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
	_, err := io.ReadFull(r, frame[headerBytes:])
	return frame, err
}

// checkAnswer checks an answer PDU against its request, a read. It serves every
// medium.
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
	quantity := int(binary.BigEndian.Uint16(request[3:]))
	expected := 2 * quantity
	if function <= 2 {
		expected = (quantity + 7) / 8
	}
	if len(answer) != 2+expected || int(answer[1]) != expected {
		return fmt.Errorf("%w: %d bytes with a byte count of %d, expected %d", errBadAnswer, len(answer)-2, answer[1], expected)
	}
	return nil
}
