package modbus

import (
	"encoding/binary"
	"math"
	mathbits "math/bits"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// An absence says why a register gave no value; none when it did.
type absence uint8

const (
	none         absence = iota
	notAvailable         // the instrument's own code for it
	notFinite            // NaN or an infinity
	badDigits            // a BCD digit above 9, text that is none
	tooLarge             // an integer beyond 2^53, which float64 cannot hold
	absences             // how many there are
)

var absenceNames = [absences]string{"", "not_available", "not_finite", "bad_digits", "too_large"}

// value reads the field from the answer to the block that holds it.
func (f *field) value(b *block, answer []byte) (telemetry.Value, absence) {
	v := telemetry.Value{Name: f.name}
	at := f.first() - b.first
	r := f.register
	if bits(b.table) {
		// MODBUS Application Protocol V1.1b3, 6.1: the least significant bit of
		// the first byte is the first one.
		return f.scaled(v, float64(answer[at/8]>>(at%8)&1))
	}
	words := answer[2*at : 2*(at+r.length())]
	if r.Type == "string" {
		v.Text = text(words, r.Order)
		if v.Text == "" {
			return v, badDigits
		}
		return v, none
	}
	raw := assemble(words, r.Order)
	switch r.Type {
	case "float32":
		return f.real(v, shortest(math.Float32frombits(uint32(raw))))
	case "float64":
		return f.real(v, math.Float64frombits(raw))
	case "bcd16", "bcd32":
		number, ok := decimal(raw)
		if !ok {
			return v, badDigits
		}
		return f.scaled(v, float64(number))
	}
	return f.integer(v, raw)
}

// integer makes a value of the two's complement or unsigned types.
func (f *field) integer(v telemetry.Value, raw uint64) (telemetry.Value, absence) {
	r := f.register
	if r.Mask != 0 {
		raw = raw & r.Mask >> mathbits.TrailingZeros64(r.Mask)
	}
	if strings.HasPrefix(r.Type, "uint") {
		if f.code(float64(raw)) {
			return v, notAvailable
		}
		if raw > telemetry.MaxInteger {
			return v, tooLarge
		}
		return f.scaled(v, float64(raw))
	}
	shift := 64 - 16*r.length()
	signed := int64(raw<<shift) >> shift
	if f.code(float64(signed)) || f.code(float64(raw)) {
		return v, notAvailable
	}
	if signed > telemetry.MaxInteger || signed < -telemetry.MaxInteger {
		return v, tooLarge
	}
	return f.scaled(v, float64(signed))
}

func (f *field) code(raw float64) bool {
	for _, code := range f.register.NotAvailable {
		if raw == code {
			return true
		}
	}
	return false
}

func (f *field) real(v telemetry.Value, raw float64) (telemetry.Value, absence) {
	if f.code(raw) {
		return v, notAvailable
	}
	v.Number = raw
	if f.scale != 1 || f.register.Offset != 0 {
		v.Number = raw*f.scale + f.register.Offset
	}
	if !telemetry.Finite(v.Number) {
		return v, notFinite
	}
	return v, none
}

// scaled makes a value of a whole number. It is rounded to the decimal places
// of scale and offset, so that 234 tenths are 23.4 and not 23.400000000000002.
func (f *field) scaled(v telemetry.Value, raw float64) (telemetry.Value, absence) {
	if f.code(raw) {
		return v, notAvailable
	}
	v.Number = raw*f.scale + f.register.Offset
	if f.places >= 0 {
		p := powers[f.places]
		if n := v.Number * p; math.Abs(n) < telemetry.MaxInteger {
			v.Number = math.Round(n) / p
		}
	}
	if !telemetry.Finite(v.Number) {
		return v, notFinite
	}
	return v, none
}

var powers = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9}

// places is how many decimals scale and offset have; -1 when more than the
// rounding serves.
func places(numbers ...float64) int {
	most := 0
	for _, f := range numbers {
		_, decimals, _ := strings.Cut(strconv.FormatFloat(f, 'f', -1, 64), ".")
		most = max(most, len(decimals))
	}
	if most >= len(powers) {
		return -1
	}
	return most
}

// assemble joins the words of a number as their order says: ABCD is big-endian
// (MODBUS Application Protocol V1.1b3, 4.2), CDAB has the words reversed, BADC
// the bytes of each word, DCBA both.
func assemble(words []byte, order string) uint64 {
	var v uint64
	n := len(words) / 2
	for i := range n {
		at := i
		if order == "CDAB" || order == "DCBA" {
			at = n - 1 - i
		}
		word := binary.BigEndian.Uint16(words[2*at:])
		if order == "BADC" || order == "DCBA" {
			word = mathbits.ReverseBytes16(word)
		}
		v = v<<16 | uint64(word)
	}
	return v
}

// shortest widens a float32 to the float64 nearest to the decimal that it
// stands for: 23.4, not 23.399999618530273.
func shortest(f float32) float64 {
	wide := float64(f)
	if !telemetry.Finite(wide) || wide == math.Trunc(wide) {
		return wide
	}
	var buffer [32]byte
	nearest, err := strconv.ParseFloat(string(strconv.AppendFloat(buffer[:0], wide, 'g', -1, 32)), 64)
	if err != nil {
		return wide
	}
	return nearest
}

// decimal reads packed BCD: four digits in each word.
func decimal(raw uint64) (number uint64, ok bool) {
	for shift := 60; shift >= 0; shift -= 4 {
		digit := raw >> shift & 0xF
		if digit > 9 {
			return 0, false
		}
		number = number*10 + digit
	}
	return number, true
}

// text reads the characters of a string up to the first NUL, without the
// spaces around it; "" when it is not printable UTF-8.
func text(words []byte, order string) string {
	chars := make([]byte, len(words))
	copy(chars, words)
	if order == "BADC" || order == "DCBA" {
		for i := 0; i+1 < len(chars); i += 2 {
			chars[i], chars[i+1] = chars[i+1], chars[i]
		}
	}
	s, _, _ := strings.Cut(string(chars), "\x00")
	s = strings.TrimSpace(s)
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return ""
	}
	return s
}
