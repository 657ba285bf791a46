package ais

import (
	"fmt"
	"math"

	goais "github.com/BertoldVdb/go-ais"

	"haidang/gateway/telemetry"
)

// kindSafety is a text that a station broadcasts to all (type 14).
const kindSafety = "safety"

// Codes for "not available" (ITU-R M.1371-5, Annex 8).
const (
	fine   = 600_000 // 1/10000 minute in a degree
	coarse = 600     // 1/10 minute in a degree

	noSpeed      = 1023
	noTurn       = -128
	statusNone   = 15
	noAltitude   = 4095
	noSpeedLong  = 63 // type 27, knots
	secondManual = 61 // 61 by hand, 62 dead reckoning, 63 not working
)

// deviceName is mmsi- and nine digits.
func deviceName(mmsi uint32) string {
	b := [14]byte{'m', 'm', 's', 'i', '-'}
	for i := 13; i >= 5; i-- {
		b[i] = '0' + byte(mmsi%10)
		mmsi /= 10
	}
	return string(b[:])
}

// distress reports whether the number is of a search and rescue transmitter, a
// man overboard device or an EPIRB (ITU-R M.585: 970, 972, 974). They alone
// mean "under test" by status 15.
func distress(mmsi uint32) bool {
	p := mmsi / 1_000_000
	return p == 970 || p == 972 || p == 974
}

// readings makes the readings of a message and hands each to emit.
func (d *Decoder) readings(m *message, emit func(telemetry.Reading)) {
	switch m.kind {
	case 1, 2, 3:
		d.position.readClassA(&m.bits)
		emitReading(m, telemetry.KindPosition, d.position.values(m.mmsi, true), emit)
	case 18:
		d.position.readClassB(&m.bits)
		emitReading(m, telemetry.KindPosition, d.position.values(m.mmsi, false), emit)
	case 5, 9, 14, 19, 21, 24, 27:
		switch p := d.unpacker.packet(m).(type) {
		case goais.ShipStaticData:
			emitReading(m, telemetry.KindVessel, shipValues(&p), emit)
		case goais.StandardSearchAndRescueAircraftReport:
			emitReading(m, telemetry.KindPosition, aircraftValues(&p), emit)
		case goais.SafetyBroadcastMessage:
			emitReading(m, kindSafety, appendWord(nil, "text", text(p.Text)), emit)
		case goais.ExtendedClassBPositionReport:
			emitReading(m, telemetry.KindPosition, extendedValues(&p), emit)
			emitReading(m, telemetry.KindVessel, extendedVessel(&p), emit)
		case goais.AidsToNavigationReport:
			emitReading(m, telemetry.KindPosition, aidPosition(&p), emit)
			emitReading(m, telemetry.KindVessel, aidValues(&p), emit)
		case goais.StaticDataReport:
			emitReading(m, telemetry.KindVessel, staticValues(&p), emit)
		case goais.LongRangeAisBroadcastMessage:
			emitReading(m, telemetry.KindPosition, longRangeValues(&p), emit)
		}
	}
}

// emitReading hands a reading over when it has a value.
func emitReading(m *message, kind string, values []telemetry.Value, emit func(telemetry.Reading)) {
	if len(values) == 0 {
		return
	}
	r := telemetry.Reading{Device: deviceName(m.mmsi), Kind: kind, Time: m.time, Values: values}
	for i := range values {
		r.Quality = max(r.Quality, values[i].Quality)
	}
	emit(r)
}

// values lists what the report says; classA ones have a status and a turn.
func (p *position) values(mmsi uint32, classA bool) []telemetry.Value {
	v := make([]telemetry.Value, 0, 7)
	v = appendPlace(v, int64(p.lon), int64(p.lat), fine, 1e6, p.second)
	v = appendMotion(v, p.speed, p.course, p.heading)
	if !classA {
		return v
	}
	// 127 and -127 are "more than 5 degrees in 30 s" without a measure.
	if p.turn > -127 && p.turn < 127 {
		rate := float64(p.turn) / 4.733
		v = appendNumber(v, "turn_degmin", math.Round(math.Copysign(rate*rate, rate)*10)/10)
	}
	if p.status != statusNone || distress(mmsi) {
		v = appendNumber(v, "nav_status", float64(p.status))
	}
	return v
}

func extendedValues(p *goais.ExtendedClassBPositionReport) []telemetry.Value {
	v := make([]telemetry.Value, 0, 5)
	v = appendPlace(v, int64(p.Longitude), int64(p.Latitude), fine, 1e6, p.Timestamp)
	return appendMotion(v, uint16(p.Sog), uint16(p.Cog), p.TrueHeading)
}

func aircraftValues(p *goais.StandardSearchAndRescueAircraftReport) []telemetry.Value {
	v := make([]telemetry.Value, 0, 5)
	v = appendPlace(v, int64(p.Longitude), int64(p.Latitude), fine, 1e6, p.Timestamp)
	if p.Sog != noSpeed { // whole knots: aircraft are fast
		v = appendNumber(v, "speed_kn", float64(p.Sog))
	}
	if p.Cog < 3600 {
		v = appendNumber(v, "course_deg", float64(p.Cog)/10)
	}
	if p.Altitude != noAltitude {
		v = appendNumber(v, "altitude_m", float64(p.Altitude))
	}
	return v
}

func longRangeValues(p *goais.LongRangeAisBroadcastMessage) []telemetry.Value {
	v := make([]telemetry.Value, 0, 5)
	v = appendPlace(v, int64(p.Longitude), int64(p.Latitude), coarse, 1e4, 0)
	if p.Sog != noSpeedLong {
		v = appendNumber(v, "speed_kn", float64(p.Sog))
	}
	if p.Cog < 360 {
		v = appendNumber(v, "course_deg", float64(p.Cog))
	}
	if p.NavigationalStatus != statusNone || distress(p.UserID) {
		v = appendNumber(v, "nav_status", float64(p.NavigationalStatus))
	}
	return v
}

func aidPosition(p *goais.AidsToNavigationReport) []telemetry.Value {
	v := appendPlace(make([]telemetry.Value, 0, 3), int64(p.Longitude), int64(p.Latitude), fine, 1e6, p.Timestamp)
	if p.Timestamp < 60 { // else the flag is to be ignored (M.1371-5, table 73)
		v = appendNumber(v, "off_position", truth(p.OffPosition))
	}
	return v
}

func aidValues(p *goais.AidsToNavigationReport) []telemetry.Value {
	v := appendWord(make([]telemetry.Value, 0, 4), "name", aidName(p.Name, p.NameExtension))
	if p.Type != 0 {
		v = appendNumber(v, "aid_type", float64(p.Type))
	}
	return appendSize(v, p.Dimension)
}

func shipValues(p *goais.ShipStaticData) []telemetry.Value {
	v := make([]telemetry.Value, 0, 9)
	v = appendWord(v, "name", text(p.Name))
	v = appendWord(v, "callsign", text(p.CallSign))
	v = appendWord(v, "destination", text(p.Destination))
	v = appendWord(v, "eta", eta(p.Eta))
	if p.ImoNumber != 0 {
		v = appendNumber(v, "imo", float64(p.ImoNumber))
	}
	v = appendShipType(v, p.Type)
	v = appendSize(v, p.Dimension)
	if p.MaximumStaticDraught != 0 {
		v = appendNumber(v, "draught_m", float64(p.MaximumStaticDraught)/10)
	}
	return v
}

func extendedVessel(p *goais.ExtendedClassBPositionReport) []telemetry.Value {
	v := appendWord(make([]telemetry.Value, 0, 4), "name", text(p.Name))
	v = appendShipType(v, p.Type)
	return appendSize(v, p.Dimension)
}

func staticValues(p *goais.StaticDataReport) []telemetry.Value {
	if !p.PartNumber {
		return appendWord(nil, "name", text(p.ReportA.Name))
	}
	v := appendWord(make([]telemetry.Value, 0, 4), "callsign", text(p.ReportB.CallSign))
	v = appendShipType(v, p.ReportB.ShipType)
	if auxiliary(p.UserID) {
		return v // its dimensions hold the number of the mother ship
	}
	return appendSize(v, p.ReportB.Dimension)
}

// auxiliary reports whether the number is of a craft that belongs to a mother
// ship (ITU-R M.585: 98MIDxxxx).
func auxiliary(mmsi uint32) bool { return mmsi/10_000_000 == 98 }

// appendPlace adds lat and lon, both or none. perDegree is the unit of the
// numbers, digits the power of ten that they are rounded to: finer than the
// unit, coarser than the noise of a division.
func appendPlace(v []telemetry.Value, lon, lat, perDegree int64, digits float64, second uint8) []telemetry.Value {
	// 181 and 91 degrees mean not available; anything beyond 180 and 90 is no place.
	if lon > 180*perDegree || lon < -180*perDegree || lat > 90*perDegree || lat < -90*perDegree {
		return v
	}
	q := telemetry.Good
	if second >= secondManual {
		q = telemetry.Suspect
	}
	scale := digits / float64(perDegree)
	return append(v,
		telemetry.Value{Name: "lat", Number: math.Round(float64(lat)*scale) / digits, Quality: q},
		telemetry.Value{Name: "lon", Number: math.Round(float64(lon)*scale) / digits, Quality: q})
}

// appendMotion adds speed (1/10 kn), course (1/10 degree) and heading (degrees).
func appendMotion(v []telemetry.Value, speed, course, heading uint16) []telemetry.Value {
	if speed != noSpeed {
		v = appendNumber(v, "speed_kn", float64(speed)/10)
	}
	if course < 3600 {
		v = appendNumber(v, "course_deg", float64(course)/10)
	}
	if heading < 360 {
		v = appendNumber(v, "heading_deg", float64(heading))
	}
	return v
}

func appendShipType(v []telemetry.Value, t uint8) []telemetry.Value {
	if t == 0 {
		return v
	}
	return appendNumber(v, "ship_type", float64(t))
}

// appendSize adds length and beam in metres where they are known.
func appendSize(v []telemetry.Value, d goais.FieldDimension) []telemetry.Value {
	if length := d.A + d.B; length != 0 {
		v = appendNumber(v, "length_m", float64(length))
	}
	if beam := d.C + d.D; beam != 0 {
		v = appendNumber(v, "beam_m", float64(beam))
	}
	return v
}

func appendNumber(v []telemetry.Value, name string, n float64) []telemetry.Value {
	return append(v, telemetry.Value{Name: name, Number: n})
}

func appendWord(v []telemetry.Value, name, word string) []telemetry.Value {
	if word == "" {
		return v
	}
	return append(v, telemetry.Value{Name: name, Text: word})
}

// eta writes the time of arrival as far as it is given: 10-27T13:00Z, 10-27 or "".
func eta(t goais.FieldETA) string {
	switch {
	case t.Month < 1 || t.Month > 12 || t.Day < 1 || t.Day > 31:
		return ""
	case t.Hour > 23 || t.Minute > 59:
		return fmt.Sprintf("%02d-%02d", t.Month, t.Day)
	}
	return fmt.Sprintf("%02d-%02dT%02d:%02dZ", t.Month, t.Day, t.Hour, t.Minute)
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
