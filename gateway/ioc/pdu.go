package ioc

import (
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"
)

// Octets of a short message (3GPP TS 23.040).
const (
	unitsAlone = 70 // UTF-16 units of a message by itself (9.2.3.24: 140 octets)
	unitsPart  = 67 // of one of several, with a header of 6 octets

	submit       = 0x01 // 9.2.3.1: SMS-SUBMIT
	relativeTime = 0x10 // 9.2.3.3: a validity period of one octet
	hasHeader    = 0x40 // 9.2.3.23: the text begins with a header
	ucs2         = 0x08 // 3GPP TS 23.038, 4: UCS2
	aDay         = 0xA7 // 9.2.3.12.1: the network tries for 24 hours
	national     = 0x81 // 9.1.2.5: type of number unknown
	internat     = 0x91 // 9.1.2.5: international
)

// A pdu is one short message as a modem takes it: hexadecimal, and how many
// octets follow the address of the service centre.
type pdu struct {
	text  string
	bytes int
}

// phone reads a telephone number: digits, with a + before an international one.
// Spaces, dots, hyphens and brackets are left out.
func phone(number string) (digits string, international bool, err error) {
	digits = strings.NewReplacer(" ", "", ".", "", "-", "", "(", "", ")", "").Replace(number)
	digits, international = strings.CutPrefix(digits, "+")
	if len(digits) < 3 || len(digits) > 20 || strings.ContainsFunc(digits, func(c rune) bool { return c < '0' || c > '9' }) {
		return "", false, fmt.Errorf("%q is not a telephone number like +84 905 123 456 or 112", number)
	}
	return digits, international, nil
}

// pdus writes a text to a number as one message, or as several that the
// telephone joins (9.2.3.24.1). At most parts of them: a longer text is cut, and
// ends with an ellipsis. reference tells the parts of several texts apart.
func pdus(number, text string, parts int, reference byte) ([]pdu, error) {
	digits, international, err := phone(number)
	if err != nil {
		return nil, err
	}
	units := utf16.Encode([]rune(strings.ToValidUTF8(text, "\ufffd")))
	if most := parts * unitsPart; len(units) > most && len(units) > unitsAlone {
		units = append(units[:whole(units, max(most, unitsPart)-1)], '…')
	}
	pieces := split(units)
	out := make([]pdu, len(pieces))
	for i, piece := range pieces {
		b := []byte{submit | relativeTime, 0}
		if len(pieces) > 1 {
			b[0] |= hasHeader
		}
		b = append(b, address(digits, international)...)
		b = append(b, 0, ucs2, aDay)
		var data []byte
		if len(pieces) > 1 {
			data = append(data, 5, 0, 3, reference, byte(len(pieces)), byte(i+1))
		}
		for _, u := range piece {
			data = append(data, byte(u>>8), byte(u))
		}
		b = append(append(b, byte(len(data))), data...)
		// The service centre is that of the SIM: its address has no octets.
		out[i] = pdu{text: "00" + strings.ToUpper(hex.EncodeToString(b)), bytes: len(b)}
	}
	return out, nil
}

func split(units []uint16) [][]uint16 {
	if len(units) <= unitsAlone {
		return [][]uint16{units}
	}
	var out [][]uint16
	for len(units) > 0 {
		n := whole(units, unitsPart)
		out = append(out, units[:n])
		units = units[n:]
	}
	return out
}

// whole returns how many of the first n units end with a whole character.
func whole(units []uint16, n int) int {
	if n >= len(units) {
		return len(units)
	}
	if utf16.IsSurrogate(rune(units[n-1])) && units[n-1] < 0xDC00 {
		return n - 1
	}
	return n
}

// address writes a number with two digits in each octet, the first one low
// (9.1.2.5).
func address(digits string, international bool) []byte {
	kind := byte(national)
	if international {
		kind = internat
	}
	out := []byte{byte(len(digits)), kind}
	for i := 0; i < len(digits); i += 2 {
		high := byte(0xF)
		if i+1 < len(digits) {
			high = digits[i+1] - '0'
		}
		out = append(out, high<<4|(digits[i]-'0'))
	}
	return out
}
