package modbus

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
)

// Whatever arrives on an RTU line: an answer without an error has the unit, the
// function, the length and the checksum of an answer to the request, and stands
// in what arrived.
func FuzzScanRTU(f *testing.F) {
	right := withCRC([]byte{1, 3, 4, 0, 1, 0, 2})
	f.Add(right, byte(1), byte(3), uint16(2))
	f.Add(append([]byte{0xFF, 0, 1, 3}, right...), byte(1), byte(3), uint16(2))
	f.Add(append(withCRC([]byte{2, 3, 2, 9, 9}), right...), byte(1), byte(3), uint16(2))
	f.Add(withCRC([]byte{1, 0x83, 2}), byte(1), byte(3), uint16(2))
	f.Add(withCRC([]byte{1, 1, 3, 0, 0, 24}), byte(1), byte(1), uint16(24))
	f.Add(withCRC([]byte{1, 6, 1, 0, 0, 2}), byte(1), byte(6), uint16(2))
	f.Add(right[:5], byte(1), byte(3), uint16(2))
	f.Fuzz(func(t *testing.T, arrived []byte, unit, function byte, quantity uint16) {
		functions := []byte{readCoils, readDiscrete, readHolding, readInput, writeCoil, writeRegister}
		function = functions[int(function)%len(functions)]
		arrived = arrived[:min(len(arrived), rtuBuffer)]
		if reads(function) {
			quantity = quantity%125 + 1
		}
		request := withCRC(binary.BigEndian.AppendUint16([]byte{unit, function, 1, 0}, quantity))
		found := scanRTU(arrived, request)
		if found.end < 0 || found.end > len(arrived) || found.stale < 0 || found.stale > len(arrived)/rtuExceptionBytes {
			t.Fatalf("%+v of %d bytes", found, len(arrived))
		}
		if found.answer == nil {
			if err := whyNone(arrived, request); err == nil {
				t.Error("no reason")
			}
			return
		}
		a := found.answer
		if !bytes.Equal(arrived[found.end-len(a):found.end], a) || crc16(a) != 0 || a[0] != unit || a[1]&0x7F != function {
			t.Fatalf("% x accepted for % x", a, request)
		}
		switch {
		case a[1] != function:
			if len(a) != rtuExceptionBytes || a[2] == 0 {
				t.Errorf("exception % x", a)
			}
		case reads(function):
			if want := answerBytes(function, int(quantity)); len(a) != 5+want || int(a[2]) != want {
				t.Errorf("% x for %d", a, quantity)
			}
		default:
			if !bytes.Equal(a, request) {
				t.Errorf("% x confirms % x", a, request)
			}
		}
	})
}

// What a write makes of a number is read back as that number.
func FuzzWrite(f *testing.F) {
	f.Add(23.4, 0.1, -5.0, byte(0), byte(0))
	f.Add(-70000.0, 1.0, 0.0, byte(2), byte(2))
	f.Add(12.5, 1.0, 0.0, byte(4), byte(3))
	f.Fuzz(func(t *testing.T, number, scale, offset float64, kind, order byte) {
		least, most := -1e9, 1e9
		w := Write{Name: "w", Scale: scale, Offset: offset, Min: &least, Max: &most,
			Type: []string{"int16", "uint16", "int32", "uint32", "float32"}[kind%5], Order: []string{"ABCD", "BADC", "CDAB", "DCBA"}[order%4]}
		if len(w.validate()) > 0 || math.Abs(scale) < 1e-3 && scale != 0 || math.Abs(scale) > 1e6 || math.Abs(offset) > 1e6 {
			return
		}
		words, err := w.words(number)
		if err != nil {
			return
		}
		r := w.register()
		fields := field{register: r, scale: r.Scale.Number, places: -1}
		v, why := fields.value(&block{table: r.Table, first: r.Address, count: r.length()}, words)
		tolerance := 1e-6*math.Abs(r.Scale.Number) + 1e-9*(math.Abs(number)+math.Abs(offset))
		if r.Type == "float32" {
			tolerance = 1e-6 * (math.Abs(number) + math.Abs(offset) + math.Abs(r.Scale.Number)*1e-30)
		}
		if why != none || math.Abs(v.Number-number) > tolerance+1e-9 {
			t.Errorf("%+v: %v is written as % x and read as %v (%s)", w, number, words, v.Number, absenceNames[why])
		}
	})
}

// Rows of whatever answer: no panic, and all of it is shown.
func FuzzRows(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3}, "float32", "CDAB", byte(0))
	f.Add([]byte{0x41, 0x42}, "string", "", byte(1))
	f.Add([]byte{0xFF}, "", "", byte(2))
	f.Fuzz(func(t *testing.T, answer []byte, kind, order string, table byte) {
		q := Query{Table: []string{Holding, Input, Coil, Discrete}[table%4], First: 10, Count: len(answer) / 2}
		if bits(q.Table) {
			q.Count = 8 * len(answer)
		}
		if q.Count == 0 || len(answer) > 250 {
			return
		}
		rows, err := Rows(q, answer, kind, order)
		if err != nil {
			return
		}
		shown := 0
		for _, row := range rows {
			shown += len(row.Hex) / 4
		}
		if !bits(q.Table) && shown != q.Count || bits(q.Table) && len(rows) != q.Count {
			t.Errorf("%d rows show %d of %d", len(rows), shown, q.Count)
		}
	})
}
