package serial

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

// What SDI-12 responses say (V1.4, 4.4). a is the address:
//
//	atttn    to aM!  n values in ttt seconds at the latest; then the service request
//	atttnn   to aC!  the same, without a service request
//	a        the service request: the values are there
//	a+v-v... to aD0! values, each with its sign; to the commands with C a CRC

// sdiStart reads the response to a command that starts a measurement.
func sdiStart(line []byte, address byte, concurrent bool) (wait time.Duration, n int, ok bool) {
	digits := 4
	if concurrent {
		digits = 5
	}
	if len(line) != 1+digits || line[0] != address {
		return 0, 0, false
	}
	for _, c := range line[1:] {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
	}
	seconds, _ := strconv.Atoi(string(line[1:4]))
	n, _ = strconv.Atoi(string(line[4:]))
	return time.Duration(seconds) * time.Second, n, true
}

// sdiVerdict says what a response with values is worth.
type sdiVerdict uint8

const (
	sdiValues sdiVerdict = iota
	sdiBare              // the address alone
	sdiWrongCRC
	sdiOther // no response of this sensor with values
)

// sdiRead reads a response with values and appends them to numbers. A value of
// which no number can be made makes the response sdiOther.
func sdiRead(line []byte, address byte, withCRC bool, numbers []string) ([]string, sdiVerdict) {
	if len(line) == 0 || line[0] != address {
		return numbers, sdiOther
	}
	if len(line) == 1 {
		return numbers, sdiBare
	}
	if line[1] != '+' && line[1] != '-' {
		return numbers, sdiOther // of another command
	}
	if withCRC {
		body, ok := checkCRC(line)
		if !ok {
			return numbers, sdiWrongCRC
		}
		line = body
	}
	rest := string(line[1:])
	before := len(numbers)
	for rest != "" {
		if rest[0] != '+' && rest[0] != '-' {
			return numbers[:before], sdiOther
		}
		end := strings.IndexAny(rest[1:], "+-") + 1
		if end == 0 {
			end = len(rest)
		}
		if _, ok := parseNumber(rest[:end]); !ok || len(numbers) == maxSDIValues {
			return numbers[:before], sdiOther
		}
		numbers = append(numbers, rest[:end])
		rest = rest[end:]
	}
	return numbers, sdiValues
}

// sdiClean takes what does not belong to a response from its ends: the break
// that some bridges pass on, CR, and the echo of the command.
func sdiClean(line []byte, command string) []byte {
	line = bytes.Trim(line, "\x00 \t\r\n")
	return bytes.TrimPrefix(line, []byte(command))
}

// sensorReadings makes readings of the values of a measurement.
func sensorReadings(fields []field, numbers []string, b *batch) []telemetry.Reading {
	b.line()
	for i := range fields {
		position, _ := strconv.Atoi(fields[i].from) // it is valid
		if position > len(numbers) {
			b.lost(lostMissing)
			continue
		}
		text := strings.TrimPrefix(numbers[position-1], "+")
		take(&fields[i], text, b)
	}
	return b.take()
}
