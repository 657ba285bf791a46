package ais

import (
	"bytes"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// wrap makes a sentence of an address and its fields.
func wrap(body string) string { return fmt.Sprintf("!%s*%02X", body, xor([]byte(body))) }

// tagged puts a tag block before a sentence.
func tagged(block, sentence string) string {
	return fmt.Sprintf(`\%s*%02X\%s`, block, xor([]byte(block)), sentence)
}

// A field is some bits of a message.
type field struct {
	at, width int
	value     int64
}

// armoured makes the payload and the fill bits of a message.
func armoured(n int, kind int64, fields ...field) string {
	b := make([]byte, (n+5)/6*6)
	for _, f := range append(fields, field{0, 6, kind}) {
		for i := range f.width {
			if f.at+i < n {
				b[f.at+i] = byte(f.value >> (f.width - 1 - i) & 1)
			}
		}
	}
	var out []byte
	for ; len(b) > 0; b = b[6:] {
		c := b[0]<<5 | b[1]<<4 | b[2]<<3 | b[3]<<2 | b[4]<<1 | b[5]
		if c += '0'; c > 'W' {
			c += 8
		}
		out = append(out, c)
	}
	return fmt.Sprintf("%s,%d", out, (6-n%6)%6)
}

// sixBit spells a text in fields of six bits.
func sixBit(at int, s string) (out []field) {
	for i := range len(s) {
		out = append(out, field{at + 6*i, 6, int64(s[i] & 63)})
	}
	return out
}

// static makes the two parts of a type 5 message that names a vessel; seq and
// channel are as written in the sentence.
func static(mmsi int64, name, seq, channel string) (first, second string) {
	payload, _, _ := strings.Cut(armoured(424, 5, append(sixBit(112, name), field{8, 30, mmsi})...), ",")
	return wrap("AIVDM,2,1," + seq + "," + channel + "," + payload[:56] + ",0"),
		wrap("AIVDM,2,2," + seq + "," + channel + "," + payload[56:] + ",2")
}

// feedAll decodes lines and lists device, kind and name of the readings.
func feedAll(lines ...string) (got []string, readings []telemetry.Reading, counts Counts) {
	d := NewDecoder()
	for _, l := range lines {
		d.Feed([]byte(l), time.Time{}, func(r telemetry.Reading) {
			readings = append(readings, r)
			got = append(got, strings.TrimRight(strings.TrimPrefix(r.Device, "mmsi-")+" "+r.Kind+" "+r.Text("name"), " "))
		})
	}
	d.End()
	return got, readings, d.Counts()
}

func TestSentences(t *testing.T) {
	one := wrap("AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0")
	const boat = "371798000 position"
	a1, a2 := static(574000001, "AN BINH", "3", "A")
	b1, b2 := static(574000002, "BINH MINH", "3", "B")
	c1, c2 := static(574000003, "CUA LO", "", "A")
	d1, d2 := static(574000004, "DA NANG", "3", "A")
	const an, binh, cua, da = "574000001 vessel AN BINH", "574000002 vessel BINH MINH", "574000003 vessel CUA LO", "574000004 vessel DA NANG"
	long := wrap("AIVDM,1,1,,A," + armoured(1000, 8, field{8, 30, 574000001}))
	for _, c := range []struct {
		name     string
		lines    []string
		want     []string
		rejected map[string]uint64
	}{
		{"plain", []string{one}, []string{boat}, nil},
		{"CR at its end", []string{one + "\r"}, []string{boat}, nil},
		{"lower case checksum", []string{strings.ToLower(one[len(one)-2:]) + " " + one[:len(one)-2] + strings.ToLower(one[len(one)-2:])}, []string{boat}, nil},
		{"own ship", []string{wrap("AIVDO,1,1,,,15RTgt0PAso;90TKcjM8h6g208CQ,0")}, []string{boat}, nil},
		{"base station talker", []string{wrap("BSVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0")}, []string{boat}, nil},
		{"one field more", []string{wrap("AIVDM,1,1,1,,15RTgt0PAso;90TKcjM8h6g208CQ,0,0")}, []string{boat}, nil},
		{"tag block", []string{tagged("s:rMT5858,c:1454976000", one)}, []string{boat}, nil},
		{"tag block with a wrong checksum", []string{`\g:1-2-9999,c:1565218798*00\` + one}, []string{boat}, nil},
		{"tag block without checksum", []string{`\c:1565218798\` + one}, []string{boat}, nil},
		{"tag block cut short", []string{`c:1565218798*53\` + one}, []string{boat}, nil},
		{"suffix", []string{one + ",r003669987,1133137684", one + ",d-109,S2105,t050056.00,T56.1,r003669946,1325394060,1325394001"}, []string{boat, boat}, nil},
		{"time before it", []string{"2012-03-14 01:02:03 " + one, "1331683200," + one, "[2012-03-14T01:02:03Z] " + one}, []string{boat, boat, boat}, nil},
		{"over 82 characters", []string{long}, nil, nil},
		{"two on one line", []string{one + one}, []string{boat, boat}, nil},
		{"cut short by another", []string{one[:20] + one}, []string{boat}, map[string]uint64{"bad_checksum": 1}},
		{"wrong checksum, then on", []string{one[:len(one)-2] + "00", one}, []string{boat}, map[string]uint64{"bad_checksum": 1}},
		{"no checksum", []string{one[:len(one)-3], one[:len(one)-1]}, nil, map[string]uint64{"bad_sentence": 2}},
		{"checksum is no number", []string{one[:len(one)-2] + "ZZ"}, nil, map[string]uint64{"bad_sentence": 1}},
		{"talker", []string{wrap("=IVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0"), wrap("--VDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0")}, nil, map[string]uint64{"bad_talker": 2}},
		{"fields", []string{
			wrap("AIVDM,1,1"), wrap("AIVDM,0,1,,A,15,0"), wrap("AIVDM,1,2,,A,15,0"), wrap("AIVDM,x,1,,A,15,0"), wrap("AIVDM,1,1,x,A,15,0"),
			wrap("AIVDM,1,1,,A,15,6"), wrap("AIVDM,1,1,,A,15,"), wrap("AIVDM,1,1,,A,15"), wrap("AIVDM,1,1,,AB,15,0"), wrap("AIVDM,12,1,,A,15,0"),
		}, nil, map[string]uint64{"bad_sentence": 10}},
		{"empty payload", []string{wrap("AIVDM,1,1,,A,,0")}, nil, map[string]uint64{"empty_payload": 1}},
		{"no armour", []string{wrap("AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208C~,0"), wrap("AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208\\Q,0")}, nil, map[string]uint64{"bad_payload": 2}},
		{"foreign", []string{"$GPZDA,114702.51,27,01,2012,,*66", "!AIPWR,0*00", "# " + one, "\x00\xff\xfe", "", "  "}, nil, map[string]uint64{"other_sentence": 4}},

		{"two parts", []string{a1, a2}, []string{an}, nil},
		{"others between", []string{a1, one, "$GPZDA,114702.51,27,01,2012,,*66", a2}, []string{boat, an}, map[string]uint64{"other_sentence": 1}},
		{"interleaved channels", []string{a1, b1, a2, b2}, []string{an, binh}, nil},
		{"interleaved talkers", []string{a1, strings.Replace(wrap("BS"+d1[3:len(d1)-3]), "!!", "!", 1), a2, wrap("BS" + d2[3:len(d2)-3])}, []string{an, da}, nil},
		{"interleaved with and without id", []string{a1, c1, a2, c2}, []string{an, cua}, nil},
		{"interleaved, told apart by group", []string{tagged("g:1-2-7", a1), tagged("g:1-2-8", d1), tagged("g:2-2-7", a2), tagged("g:2-2-8", d2)}, []string{an, da}, nil},
		{"interleaved, told apart by source", []string{tagged("s:x", a1), tagged("s:y", d1), tagged("s:x", a2), tagged("s:y", d2)}, []string{an, da}, nil},
		{"one group id for all", []string{tagged("g:1-2-9999", a1), tagged("g:1-2-9999", b1), tagged("g:2-2-9999", a2), tagged("g:2-2-9999", b2)}, []string{an, binh}, nil},
		{"tag block only before the first", []string{tagged("g:1-2-7,s:x", a1), a2}, []string{an}, nil},
		{"id used again", []string{a1, a2, d1, d2}, []string{an, da}, nil},
		{"id used again, the first never complete", []string{a1, d1, d2}, []string{da}, map[string]uint64{"incomplete_multipart": 1}},
		{"no channel in the second", []string{a1, wrap(strings.Replace(a2[1:len(a2)-3], ",A,", ",,", 1))}, []string{an}, nil},
		{"second alone", []string{a2, a1}, nil, map[string]uint64{"orphan_part": 1, "incomplete_multipart": 1}},
		{"second twice", []string{a1, a2, a2}, []string{an}, map[string]uint64{"orphan_part": 1}},
		{"part missing", []string{wrap("AIVDM,3,1,4,A,5000,0"), wrap("AIVDM,3,3,4,A,00,2")}, nil, map[string]uint64{"incomplete_multipart": 1}},
		{"first never followed", []string{a1}, nil, map[string]uint64{"incomplete_multipart": 1}},
		{"wrong checksum in the second", []string{a1, a2[:len(a2)-2] + "00"}, nil, map[string]uint64{"bad_checksum": 1, "incomplete_multipart": 1}},
		{"MMSI 0 and of ten digits", []string{
			wrap("AIVDM,1,1,,A," + armoured(168, 1)), wrap("AIVDM,1,1,,A," + armoured(168, 1, field{8, 30, 1_000_000_000})),
		}, nil, map[string]uint64{"bad_mmsi": 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, _, counts := feedAll(c.lines...)
			if strings.Join(got, "\n") != strings.Join(c.want, "\n") {
				t.Errorf("readings %q, want %q", got, c.want)
			}
			if c.rejected == nil {
				c.rejected = map[string]uint64{}
			}
			if r := counts.Reasons(); !maps.Equal(r, c.rejected) {
				t.Errorf("rejected %v, want %v", r, c.rejected)
			}
			if counts.Lines != uint64(len(c.lines)) {
				t.Errorf("%d lines counted, want %d", counts.Lines, len(c.lines))
			}
		})
	}
}

func TestTimes(t *testing.T) {
	one := wrap("AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0")
	gate := func(sum string) string {
		body := "PGHP,1,2010,6,11,11,46,11,390,231,45,992190934,1," + sum
		return fmt.Sprintf("$%s*%02X", body, xor([]byte(body)))
	}
	for _, c := range []struct {
		name  string
		lines []string
		want  string
	}{
		{"none", []string{one}, ""},
		{"tag block, seconds", []string{tagged("c:1454976000", one)}, "2016-02-09T00:00:00Z"},
		{"tag block, milliseconds", []string{tagged("c:1454976000250", one)}, "2016-02-09T00:00:00.25Z"},
		{"tag block, no number", []string{tagged("c:now", one)}, ""},
		{"tag block with a wrong checksum alone", []string{`\c:1454976000*00\` + one}, ""},
		{"tag block with a wrong checksum near a right one", []string{tagged("c:1454976000", one), `\c:1454976005*00\` + one}, ""},
		{"tag block without a checksum", []string{`\c:1454976005\` + one}, ""},
		{"suffix", []string{one + ",r003669987,1133137684"}, "2005-11-28T00:28:04Z"},
		{"suffix without station", []string{one + ",1133137684"}, ""},
		{"before it", []string{"2012-03-14 01:02:03.5 " + one}, "2012-03-14T01:02:03.5Z"},
		{"before it, RFC 3339", []string{"2012-03-14T01:02:03+07:00," + one}, "2012-03-13T18:02:03Z"},
		{"before it, Unix", []string{"1331683200.25 " + one}, "2012-03-14T00:00:00.25Z"},
		{"before it, another number", []string{"0000012345 " + one}, ""},
		{"gatehouse", []string{gate(one[len(one)-2:]), one}, "2010-06-11T11:46:11.39Z"},
		{"gatehouse of another", []string{gate("00"), one}, ""},
		{"gatehouse of the one before", []string{gate(one[len(one)-2:]), one, one}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, readings, _ := feedAll(c.lines...)
			got := ""
			if at := readings[len(readings)-1].Time; !at.IsZero() {
				got = at.Format(time.RFC3339Nano)
			}
			if got != c.want {
				t.Errorf("time %q, want %q", got, c.want)
			}
		})
	}
}

// TestPartialsAreBounded floods a decoder with first parts.
func TestPartialsAreBounded(t *testing.T) {
	d := NewDecoder()
	at := time.Unix(1_761_523_200, 0)
	none := func(telemetry.Reading) { t.Error("a reading of half a message") }
	const n = 5000
	for i := range n {
		first, _ := static(574000000, "X", fmt.Sprint(i%10), fmt.Sprintf("%c", 'A'+i/10%26))
		d.Feed([]byte(tagged(fmt.Sprintf("g:1-2-%d", i), first)), at, none)
	}
	if w, f := len(d.parser.assembly.waiting), len(d.parser.assembly.free); w != maxWaiting || f > 2 {
		t.Errorf("%d waiting, %d free, want %d and few", w, f, maxWaiting)
	}
	// A second part that comes too late is an orphan.
	_, second := static(574000000, "X", "9", fmt.Sprintf("%c", 'A'+(n-1)/10%26))
	if r := d.Feed([]byte(second), at.Add(partTimeout+time.Second), none); r != OrphanPart {
		t.Errorf("late part: %v, want %v", r, OrphanPart)
	}
	if c := d.Counts(); c.Rejected[Incomplete] != n || len(d.parser.assembly.waiting) != 0 {
		t.Errorf("%d incomplete and %d waiting, want %d and 0", c.Rejected[Incomplete], len(d.parser.assembly.waiting), n)
	}
	// Parts of a message that is longer than any can be.
	body := strings.Repeat("0", maxPayloadChars/2+1)
	d.Feed([]byte(wrap("AIVDM,2,1,1,A,"+body+",0")), at, none)
	if r := d.Feed([]byte(wrap("AIVDM,2,2,1,A,"+body+",0")), at, none); r != BadPayload {
		t.Errorf("too long: %v, want %v", r, BadPayload)
	}
}

// FuzzFeed looks for panics, for values that are none, and for partial messages
// without bound.
func FuzzFeed(f *testing.F) {
	one := wrap("AIVDM,1,1,,A,15RTgt0PAso;90TKcjM8h6g208CQ,0")
	a1, a2 := static(574000001, "AN BINH", "3", "A")
	for _, s := range []string{
		one, a1 + "\n" + a2, tagged("g:1-2-7,s:x,c:1454976000", a1) + "\r\n" + a2, one + ",r003669987,1133137684",
		"$PGHP,1,2010,6,11,11,46,11,390,231,45,992190934,1,2B*5B\n!AIVDM,1,1,,B,402=481uaUcf;OQ55JS9ITi025Jp,0*2B",
		`\\!AIVDM,,*`, `\g:--*\!AIVDM,1,1,,,,0*`, wrap("AIVDM,1,1,,A,H3KLehdt00000000?6ekkjm000000,0"),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stream []byte) {
		d := NewDecoder()
		f := NewFleet(nil).Decoder("x", Policy{MaxSkew: DefaultMaxSkew, Refresh: DefaultRefresh, Thin: Thin{Every: telemetry.Duration(time.Second)}})
		at := epoch
		for line := range bytes.SplitSeq(stream, []byte("\n")) {
			d.Feed(line, time.Time{}, func(r telemetry.Reading) { checkReading(t, &r) })
			at = at.Add(time.Second)
			f.Feed(line, at, func(r telemetry.Reading) { checkReading(t, &r) })
		}
		if len(d.parser.assembly.waiting) > maxWaiting {
			t.Error("too many partial messages")
		}
	})
}

// FuzzPayload puts any payload into a right sentence, through both outputs.
func FuzzPayload(f *testing.F) {
	for _, s := range []string{
		"15RTgt0PAso;90TKcjM8h6g208CQ", "B3KLehP0B@LTN6`Vl;rrBE063P06", "55R3Vn82=ILTQ3KKS>1<D60Dq@E918U<F222221J1`?164vc03S1CCAD`88888888888880",
		"H3KLehQ=DtddT00000000000000", "JB3R0GO7p>vQL8tjw0b5hqpd0706kh9d3lR2vbl0400", "I6SWo?8P00a3PKpEKEVj0?vNP<65", "?w>DNkiVT>Qp8eMvd@",
		"E>lsouHpqP000000000000000004cRn9tKBU`10888QJ`gwwh1", "F@@W>gOP00PH=JrN9l000?wB2HH;", "603Owlh0>5Q@04000000", "7IiQ4T`UjA9lC;b:M<MWE@",
	} {
		f.Add([]byte(s), uint8(0))
	}
	f.Fuzz(func(t *testing.T, payload []byte, fill uint8) {
		d, j := NewDecoder(), newJSONWriter(true)
		line := []byte(wrap(fmt.Sprintf("AIVDM,1,1,,A,%s,%d", payload, fill%6)))
		d.Feed(line, time.Time{}, func(r telemetry.Reading) { checkReading(t, &r) })
		newParser().feed(line, time.Time{}, func(m *message) { checkJSON(t, j.message(m)) })
	})
}
