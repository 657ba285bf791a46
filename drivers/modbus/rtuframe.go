package modbus

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// MODBUS over serial line V1.02, 2.5.1: an RTU frame is a unit, a PDU and a CRC
// of two bytes, low byte first.
const (
	rtuExceptionBytes = 5
	rtuWriteBytes     = 8 // answer to a write
	maxRTUBytes       = 256
)

// rtuAnswerBytes is the length of the frame that answers the request, other
// than with an exception.
func rtuAnswerBytes(request []byte) int {
	if !reads(request[1]) {
		return rtuWriteBytes
	}
	return 5 + answerBytes(request[1], int(binary.BigEndian.Uint16(request[4:])))
}

// A find is what scanRTU has found in the bytes that arrived.
type find struct {
	answer []byte // the answer to the request, or nil
	end    int    // bytes up to its end; without an answer, up to the end of the last whole frame
	stale  int    // whole frames before it that answer something else
}

// scanRTU looks for the answer to request in what arrived: noise and answers to
// other requests may stand before it. Nothing in a frame tells to which request
// it belongs, but for unit, function and length; see doubts.
func scanRTU(arrived, request []byte) find {
	var f find
	for i := 0; i+rtuExceptionBytes <= len(arrived); {
		rest := arrived[i:]
		if answer := answerAt(rest, request); answer != nil {
			return find{answer: answer, end: i + len(answer), stale: f.stale}
		}
		if n := frameAt(rest); n > 0 {
			i += n
			f.end = i
			f.stale++
			continue
		}
		i++
	}
	return f
}

// answerAt returns the frame at the start of b when it is whole and answers the
// request.
func answerAt(b, request []byte) []byte {
	if b[0] != request[0] || b[1]&0x7F != request[1] {
		return nil
	}
	n := rtuExceptionBytes
	if b[1] == request[1] {
		n = rtuAnswerBytes(request)
	}
	if len(b) < n || crc16(b[:n]) != 0 || checkAnswer(request[1:], b[1:n-2]) != nil {
		return nil
	}
	return b[:n]
}

// frameAt returns the length of the whole answer frame, to whatever request,
// that b begins with; 0 when there is none.
func frameAt(b []byte) int {
	n := 0
	switch function := b[1]; {
	case function&0x80 != 0 && knownFunction(function&0x7F):
		n = rtuExceptionBytes
	case reads(function):
		n = 5 + int(b[2])
	case knownFunction(function):
		n = rtuWriteBytes
	}
	if n < rtuExceptionBytes || n > len(b) || crc16(b[:n]) != 0 {
		return 0
	}
	return n
}

func knownFunction(function byte) bool {
	return reads(function) || function == writeCoil || function == writeRegister || function == writeCoils || function == writeRegisters
}

// whyNone says what is wrong with bytes that are no answer.
func whyNone(arrived, request []byte) error {
	shown := arrived[:min(len(arrived), 16)]
	n := rtuAnswerBytes(request)
	switch {
	case bytes.HasPrefix(arrived, request):
		return fmt.Errorf("%w: only the request itself came back; if the adapter echoes what it sends, set echo: true", errBadAnswer)
	case len(arrived) >= 2 && arrived[0] == request[0] && arrived[1] == request[1] && len(arrived) < n:
		return fmt.Errorf("%w: %d bytes of %d (% x)", errBadAnswer, len(arrived), n, shown)
	case len(arrived) >= 2 && arrived[0] == request[0] && arrived[1] == request[1]:
		return fmt.Errorf("%w: the checksum or the count is wrong in %d bytes (% x)", errBadAnswer, len(arrived), shown)
	}
	return fmt.Errorf("%w: %d bytes that do not begin with unit %d and function %d (% x)", errBadAnswer, len(arrived), request[0], request[1], shown)
}
