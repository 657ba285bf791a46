package modbus

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadAnswer(t *testing.T) {
	request, _ := hex.DecodeString("000500000006" + "01" + "03" + "01F4" + "0002")
	for _, c := range []struct {
		name, bytes string
		wrong       string // "" is right
		stale       int
	}{
		{"right", "000500000007" + "01" + "03" + "04" + "00010002", "", 0},
		{"exception", "000500000003" + "01" + "83" + "02", "", 0},
		{"after a stale one", "000400000003" + "01" + "83" + "02" + "000500000007" + "01" + "03" + "04" + "00010002", "", 1},
		{"exception of another function", "000500000003" + "01" + "84" + "02", "function 132, expected 3", 0},
		{"exception with code 0", "000500000003" + "01" + "83" + "00", "expected function and code", 0},
		{"exception with two codes", "000500000004" + "01" + "83" + "0203", "an exception of 3 bytes", 0},
		{"unit", "000500000007" + "02" + "03" + "04" + "00010002", "from unit 2, expected 1", 0},
		{"function", "000500000007" + "01" + "04" + "04" + "00010002", "function 4, expected 3", 0},
		{"protocol", "000500010007" + "01" + "03" + "04" + "00010002", "protocol id 1", 0},
		{"fewer registers", "000500000005" + "01" + "03" + "02" + "0001", "2 bytes with a byte count of 2, expected 4", 0},
		{"byte count", "000500000007" + "01" + "03" + "02" + "00010002", "4 bytes with a byte count of 2, expected 4", 0},
		{"length", "000500000002" + "01" + "03", "length 2 is not in 3..254", 0},
		{"silence", "0005000000", "EOF", 0},
	} {
		raw, err := hex.DecodeString(c.bytes)
		if err != nil {
			t.Fatal(err)
		}
		stale := 0
		_, err = readAnswer(bytes.NewReader(raw), request, func() { stale++ })
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
		if stale != c.stale {
			t.Errorf("%s: %d stale answers, want %d", c.name, stale, c.stale)
		}
	}
}

// Whatever arrives: an answer without an error belongs to its request and has
// as many bytes as were asked for, and nothing is read beyond its end.
func FuzzReadAnswer(f *testing.F) {
	for _, answer := range []string{
		"000500000007010304000100020005", "000500000003018302", "000400000003018302000500000007010304000100aa",
		"00050000000401010103", "0005000000ff0103fc", "000500000003018300", "",
	} {
		raw, err := hex.DecodeString(answer)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, byte(3), uint16(2))
		f.Add(raw, byte(1), uint16(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, function byte, quantity uint16) {
		function = function%4 + 1
		request := binary.BigEndian.AppendUint16([]byte{0, 5, 0, 0, 0, 6, 1, function, 1, 0xF4}, quantity%2000+1)
		source := bytes.NewReader(raw)
		answer, err := readAnswer(bufio.NewReaderSize(source, 16), request, func() {})
		if err != nil {
			if !errors.Is(err, errBadAnswer) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v of no known kind", err)
			}
			return
		}
		if !bytes.Equal(answer[:4], request[:4]) || answer[6] != 1 || int(binary.BigEndian.Uint16(answer[4:])) != len(answer)-6 {
			t.Errorf("header % x accepted for % x", answer[:7], request[:7])
		}
		count := int(quantity%2000 + 1)
		expected := 2 * count
		if function <= 2 {
			expected = (count + 7) / 8
		}
		exception := len(answer) == 9 && answer[7] == function|0x80 && answer[8] != 0
		if !exception && (answer[7] != function || int(answer[8]) != expected || len(answer) != 9+expected) {
			t.Errorf("% x accepted for %d of function %d", answer, count, function)
		}
		if !bytes.Contains(raw, answer) {
			t.Errorf("% x is not in what arrived", answer)
		}
	})
}

// Whatever the profile says and the unit answers: no panic, no NaN, no reading
// with more values than it has registers.
func FuzzProfile(f *testing.F) {
	f.Add([]byte(level), []byte{0, 1, 2, 3})
	f.Add([]byte("name: x\nmax_gap: 3\nregisters: [{value: a.b, address: 0, type: float32, order: CDAB, scale: 1e300}, {value: a.c, address: 3, type: string, words: 4}]"), []byte{0x7F, 0x80, 0, 0})
	f.Add([]byte("name: x\noptions: [{name: s, default: 2}]\nregisters: [{value: a.b, address: 1, table: coil, scale: s}, {value: b.c, address: 65535, mask: 0xF0}, {value: a.d, address: 9, type: int64, not_available: [-1]}]"), []byte{0xFF})
	f.Fuzz(func(t *testing.T, text, answer []byte) {
		profile, faults := parseProfile("p.yaml", text)
		if len(faults) > 0 {
			for _, fault := range faults {
				if fault.Path == "" || fault.Want == "" {
					t.Errorf("a fault without place or sentence: %+v", fault)
				}
			}
			return
		}
		u := newUnit(&Unit{Device: "a"}, DefaultInterval, profile)
		readings := u.harvest().readings
		seen := 0
		for i := range u.blocks {
			b := &u.blocks[i]
			if longest := profile.longest(b.table); b.count < 1 || b.count > longest {
				t.Fatalf("a read of %d from %s %d, longest %d", b.count, b.table, b.first, longest)
			}
			raw := make([]byte, 2*b.count)
			for i := range raw {
				if len(answer) > 0 {
					raw[i] = answer[i%len(answer)]
				}
			}
			for j := range b.fields {
				v, why := b.fields[j].value(b, raw)
				if seen++; why == none && v.Text == "" && v.Number-v.Number != 0 {
					t.Errorf("value %v of %+v", v, b.fields[j].register)
				}
			}
		}
		if seen != len(profile.Registers) || len(readings) == 0 {
			t.Errorf("%d of %d registers are read into %d readings", seen, len(profile.Registers), len(readings))
		}
	})
}
