package demo

import (
	"errors"
	"fmt"
	"math"
	"time"

	ais "github.com/BertoldVdb/go-ais"
)

// Codes of ITU-R M.1371-5.
const (
	typeClassA     = 1
	typeClassB     = 18
	typeStaticA    = 5
	typeStaticB    = 24
	statusFishing  = 7    // navigational status: engaged in fishing
	shipFishing    = 30   // type of ship: fishing
	turnUnknown    = -128 // rate of turn: not available
	fixGPS         = 1
	fastest        = 1022 // speed over ground in tenths of a knot: 102.2 or more
	maxPayload     = 56   // characters of payload that fit a line of 82 (NMEA 0183)
	positionDegree = 600_000
)

// errUnsendable says that AIS has no form for what a boat is to send.
var errUnsendable = errors.New("a field is out of range or has letters that AIS does not know")

// A transponder turns fixes and names into NMEA 0183 sentences. It is not safe
// for concurrent use.
type transponder struct {
	codec    *ais.Codec
	sequence int  // of multi-part messages, 0 to 9
	channelB bool // the channels alternate
}

func newTransponder() *transponder {
	codec := ais.CodecNew(false, false)
	// The encoder truncates degrees and tenths; in raw units we round ourselves.
	codec.FloatWithoutConversion = true
	return &transponder{codec: codec}
}

// position appends the sentence of a position report: type 1 from class A,
// type 18 from class B. at gives the second of the minute.
func (tr *transponder) position(dst []byte, b *boat, f fix, at time.Time) ([]byte, error) {
	header := ais.Header{MessageID: typeClassB, UserID: b.mmsi}
	lon := ais.FieldLatLonFine(math.Round(f.lon * positionDegree))
	lat := ais.FieldLatLonFine(math.Round(f.lat * positionDegree))
	sog := ais.Field10(min(math.Round(f.speedKn*10), fastest))
	cog := ais.Field10(math.Mod(math.Round(f.courseDeg*10), 3600))
	heading := uint16(math.Round(f.courseDeg)) % 360
	second := uint8(at.UTC().Second())
	if b.classA {
		header.MessageID = typeClassA
		return tr.sentences(dst, ais.PositionReport{
			Header: header, Valid: true, NavigationalStatus: statusFishing, RateOfTurn: turnUnknown,
			Sog: sog, PositionAccuracy: true, Longitude: lon, Latitude: lat, Cog: cog,
			TrueHeading: heading, Timestamp: second,
		})
	}
	return tr.sentences(dst, ais.StandardClassBPositionReport{
		Header: header, Valid: true, Sog: sog, Longitude: lon, Latitude: lat, Cog: cog,
		TrueHeading: heading, Timestamp: second, ClassBUnit: true, ClassBBand: true, ClassBMsg22: true,
	})
}

// static appends the sentences of who the boat is: type 5 in two parts from
// class A, type 24 parts A and B from class B.
func (tr *transponder) static(dst []byte, b *boat) ([]byte, error) {
	bow := uint16(math.Round(b.lengthM * 0.7))
	stern := uint16(math.Round(b.lengthM)) - bow
	size := ais.FieldDimension{A: bow, B: stern, C: 2, D: 3}
	if b.classA {
		return tr.sentences(dst, ais.ShipStaticData{
			Header: ais.Header{MessageID: typeStaticA, UserID: b.mmsi}, Valid: true,
			CallSign: b.callSign, Name: b.plate, Type: shipFishing, Dimension: size, FixType: fixGPS,
			// Month 0, day 0, hour 24, minute 60: no time of arrival.
			Eta:                  ais.FieldETA{Hour: 24, Minute: 60},
			MaximumStaticDraught: ais.Field10(math.Round(b.lengthM * 1.2)), // 12 % of the length, in tenths
			Destination:          b.port,
		})
	}
	header := ais.Header{MessageID: typeStaticB, UserID: b.mmsi}
	dst, err := tr.sentences(dst, ais.StaticDataReport{
		Header: header, Valid: true, ReportA: ais.StaticDataReportA{Valid: true, Name: b.plate},
	})
	if err != nil {
		return dst, err
	}
	return tr.sentences(dst, ais.StaticDataReport{
		Header: header, Valid: true, PartNumber: true,
		ReportB: ais.StaticDataReportB{Valid: true, ShipType: shipFishing, CallSign: b.callSign, Dimension: size, FixType: fixGPS},
	})
}

// sentences appends the !AIVDM sentences of a message, each with CR LF. Its
// bits are armoured six to a character (IEC 61162-1).
func (tr *transponder) sentences(dst []byte, message ais.Packet) ([]byte, error) {
	bits := tr.codec.EncodePacket(message)
	if bits == nil {
		header := message.GetHeader()
		return dst, fmt.Errorf("encode AIS message %d of %d: %w", header.MessageID, header.UserID, errUnsendable)
	}
	payload, fill := armour(bits)
	channel := byte('A')
	if tr.channelB {
		channel = 'B'
	}
	tr.channelB = !tr.channelB
	parts := (len(payload) + maxPayload - 1) / maxPayload
	sequence := ""
	if parts > 1 {
		sequence = fmt.Sprint(tr.sequence)
		tr.sequence = (tr.sequence + 1) % 10
	}
	for part := 1; part <= parts; part++ {
		piece := payload[:min(maxPayload, len(payload))]
		payload = payload[len(piece):]
		pieceFill := 0
		if part == parts {
			pieceFill = fill
		}
		body := fmt.Sprintf("AIVDM,%d,%d,%s,%c,%s,%d", parts, part, sequence, channel, piece, pieceFill)
		dst = fmt.Appendf(dst, "!%s*%02X\r\n", body, checksum(body))
	}
	return dst, nil
}

// armour packs bits (one a byte) six to a character and returns how many bits
// of the last character are filling.
func armour(bits []byte) (payload []byte, fill int) {
	fill = (6 - len(bits)%6) % 6
	payload = make([]byte, 0, (len(bits)+fill)/6)
	for i := 0; i < len(bits); i += 6 {
		var six byte
		for k := i; k < i+6; k++ {
			six <<= 1
			if k < len(bits) {
				six |= bits[k] & 1
			}
		}
		if six > 39 {
			six += 8
		}
		payload = append(payload, six+48)
	}
	return payload, fill
}

// checksum is the exclusive or of the characters between ! and *.
func checksum(body string) byte {
	var sum byte
	for i := 0; i < len(body); i++ {
		sum ^= body[i]
	}
	return sum
}
