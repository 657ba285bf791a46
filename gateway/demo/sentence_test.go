package demo

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	ais "github.com/BertoldVdb/go-ais"
	"github.com/BertoldVdb/go-ais/aisnmea"
)

// checkLine verifies the frame of a sentence by the letter of NMEA 0183.
func checkLine(t *testing.T, line string) {
	t.Helper()
	body, sum, ok := strings.Cut(strings.TrimSuffix(line, "\r\n"), "*")
	var x byte
	for _, c := range []byte(strings.TrimPrefix(body, "!")) {
		x ^= c
	}
	if !ok || !strings.HasSuffix(line, "\r\n") || !strings.HasPrefix(line, "!AIVDM,") || len(line) > 82 || fmt.Sprintf("%02X", x) != sum {
		t.Errorf("%q is not a sentence of at most 82 characters with checksum %02X", line, x)
	}
}

// decodeAll reads sentences back with go-ais' own sentence layer.
func decodeAll(t *testing.T, text []byte) []ais.Packet {
	t.Helper()
	codec := aisnmea.NMEACodecNew(ais.CodecNew(false, false))
	var packets []ais.Packet
	for line := range strings.SplitAfterSeq(string(text), "\n") {
		if line == "" {
			continue
		}
		checkLine(t, line)
		p, err := codec.ParseSentence(strings.TrimSpace(line))
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if p != nil && p.Packet != nil {
			packets = append(packets, p.Packet)
		}
	}
	return packets
}

func TestPositionsDecodeToWhereTheBoatIs(t *testing.T) {
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	s := storm{seed: 1, speed: 1}
	fleet, err := newFleet(list, s)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTransponder()
	at := time.Date(2025, 10, 27, 13, 0, 42, 0, time.UTC)
	for i := range fleet {
		b := &fleet[i]
		for x := 0.0; x < 1800; x += 61 {
			want := b.at(x, 1)
			text, err := tr.position(nil, b, want, at)
			if err != nil {
				t.Fatal(err)
			}
			packets := decodeAll(t, text)
			if len(packets) != 1 {
				t.Fatalf("%d messages of one position", len(packets))
			}
			var got fix
			var mmsi uint32
			var second uint8
			switch p := packets[0].(type) {
			case ais.PositionReport:
				got = fix{float64(p.Latitude), float64(p.Longitude), float64(p.Sog), float64(p.Cog)}
				mmsi, second = p.UserID, p.Timestamp
				if !b.classA || p.NavigationalStatus != statusFishing {
					t.Errorf("class B boat, or not fishing: %+v", p)
				}
			case ais.StandardClassBPositionReport:
				got = fix{float64(p.Latitude), float64(p.Longitude), float64(p.Sog), float64(p.Cog)}
				mmsi, second = p.UserID, p.Timestamp
				if b.classA {
					t.Errorf("class A boat sends type 18")
				}
			default:
				t.Fatalf("a position decodes to %T", p)
			}
			if mmsi != b.mmsi || second != 42 {
				t.Errorf("mmsi %d second %d, want %d and 42", mmsi, second, b.mmsi)
			}
			// Half a unit of 1/10000 minute, half a tenth.
			if math.Abs(got.lat-want.lat) > 1e-6 || math.Abs(got.lon-want.lon) > 1e-6 ||
				math.Abs(got.speedKn-want.speedKn) > 0.051 || math.Abs(math.Mod(got.courseDeg-want.courseDeg+540, 360)-180) > 0.051 {
				t.Errorf("%s at %v s: sent %+v, decoded %+v", b.device.ID, x, want, got)
			}
		}
	}
}

// TestFasterThanAISCanSay: at a high speed of the story a boat outruns the
// field of its report.
func TestFasterThanAISCanSay(t *testing.T) {
	for _, classA := range []bool{true, false} {
		text, err := newTransponder().position(nil, &boat{mmsi: 574990001, classA: classA}, fix{lat: 16.6, lon: 107.9, speedKn: 160}, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		var got float64
		switch p := decodeAll(t, text)[0].(type) {
		case ais.PositionReport:
			got = float64(p.Sog)
		case ais.StandardClassBPositionReport:
			got = float64(p.Sog)
		}
		if got != 102.2 {
			t.Errorf("160 kn is sent as %v, want 102.2 (that or more)", got)
		}
	}
}

func TestStaticReportsNameTheBoats(t *testing.T) {
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	fleet, err := newFleet(list, storm{speed: 1})
	if err != nil {
		t.Fatal(err)
	}
	tr := newTransponder()
	for i := range fleet {
		b := &fleet[i]
		text, err := tr.static(nil, b)
		if err != nil {
			t.Fatal(err)
		}
		var name, callSign string
		var shipType uint8
		var length int
		for _, p := range decodeAll(t, text) {
			switch p := p.(type) {
			case ais.ShipStaticData:
				name, callSign, shipType = p.Name, p.CallSign, p.Type
				length = int(p.Dimension.A + p.Dimension.B)
				if p.Destination != b.port {
					t.Errorf("%s: destination %q, want %q", b.device.ID, p.Destination, b.port)
				}
			case ais.StaticDataReport:
				if !p.PartNumber {
					name = p.ReportA.Name
					continue
				}
				callSign, shipType = p.ReportB.CallSign, p.ReportB.ShipType
				length = int(p.ReportB.Dimension.A + p.ReportB.Dimension.B)
			}
		}
		name = strings.TrimRight(name, "@ ")
		callSign = strings.TrimRight(callSign, "@ ")
		if name != b.device.Name || callSign != b.callSign || shipType != shipFishing || math.Abs(float64(length)-b.lengthM) > 0.51 {
			t.Errorf("%s: decoded name %q, call sign %q, type %d, length %d m", b.device.ID, name, callSign, shipType, length)
		}
	}
}

// TestFeederSchedule follows the feeder for a cycle without a socket: how often
// each boat is heard, and who falls silent.
func TestFeederSchedule(t *testing.T) {
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	s := storm{seed: 2, speed: 1}
	fleet, err := newFleet(list, s)
	if err != nil {
		t.Fatal(err)
	}
	fd := newFeeder("", s, fleet, time.Time{}, slog.New(slog.DiscardHandler))
	positions, statics := map[uint32]int{}, map[uint32]int{}
	lastHeard, longestGap := map[uint32]time.Duration{}, map[uint32]time.Duration{}
	for since := time.Duration(0); since < 90*time.Second; since += feederStep {
		text, err := fd.due(nil, since, time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range decodeAll(t, text) {
			mmsi := p.GetHeader().UserID
			switch p.(type) {
			case ais.PositionReport, ais.StandardClassBPositionReport:
				positions[mmsi]++
				longestGap[mmsi] = max(longestGap[mmsi], since-lastHeard[mmsi])
				lastHeard[mmsi] = since
			default:
				statics[mmsi]++
			}
		}
	}
	for i := range fleet {
		b := &fleet[i]
		if b.device.ID == silentBoat {
			if gap := longestGap[b.mmsi]; gap < 35*time.Second || gap > 45*time.Second || lastHeard[b.mmsi] < 85*time.Second {
				t.Errorf("%s was silent for %s and last heard at %s", b.device.ID, gap, lastHeard[b.mmsi])
			}
			continue
		}
		if n := positions[b.mmsi]; n < 29 || n > 46 || longestGap[b.mmsi] > 3100*time.Millisecond {
			t.Errorf("%s: %d positions in 90 s, longest gap %s", b.device.ID, n, longestGap[b.mmsi])
		}
		if n := statics[b.mmsi]; n < 4 || n > 10 {
			t.Errorf("%s: %d static messages in 90 s", b.device.ID, n)
		}
	}
}

func TestArmour(t *testing.T) {
	for _, c := range []struct {
		bits string
		want string
		fill int
	}{
		{"000000", "0", 0},
		{"100111", "W", 0}, // 39 is the last before the gap
		{"101000", "`", 0}, // 40
		{"111111", "w", 0},
		{"11111", "v", 1},
	} {
		bits := []byte(c.bits)
		for i := range bits {
			bits[i] -= '0'
		}
		if got, fill := armour(bits); string(got) != c.want || fill != c.fill {
			t.Errorf("%s: %q fill %d, want %q fill %d", c.bits, got, fill, c.want, c.fill)
		}
	}
}
