package ais

import (
	"fmt"
	"math"
	"strconv"

	goais "github.com/BertoldVdb/go-ais"

	"haidang/gateway/telemetry"
)

// Kinds of AIS alone, beside position and vessel.
const (
	kindSafety  = "safety"  // a text to all or to one station (types 14 and 12)
	kindWeather = "weather" // of a meteorological station (types 8 and 6)
	kindSea     = "sea"     // of a hydrological station (types 8 and 6)
)

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

// trackName is the device of a vessel that is not the first on its MMSI.
func trackName(device string, number uint8) string {
	return device + "." + strconv.Itoa(int(number))
}

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

// readings makes the readings of a message.
func (d *Decoder) readings(m *message) {
	switch m.kind {
	case 1, 2, 3:
		d.position.readClassA(&m.bits)
		if v := d.place(m, d.position.report(), d.limits); !v.thinned {
			d.sendPosition(m, v, d.position.values(m.mmsi, true))
		}
	case 18:
		d.position.readClassB(&m.bits)
		if v := d.place(m, d.position.report(), d.limits); !v.thinned {
			d.sendPosition(m, v, d.position.values(m.mmsi, false))
		}
	case 4, 9, 11, 19, 21, 27:
		d.rarePosition(m)
	case 5, 24:
		d.static(m)
	case 6, 8:
		d.application(m)
	case 12, 14:
		d.safety(m)
	default:
		d.parser.counts.Unread[m.kind]++
	}
}

// rarePosition reads the positions that go-ais unpacks.
func (d *Decoder) rarePosition(m *message) {
	switch p := d.unpacker.packet(m).(type) {
	case goais.BaseStationReport:
		l := d.limits // type 11: a vessel that was asked for its time
		if m.kind == 4 {
			l = standing
		}
		r := newReport(int32(p.Longitude), int32(p.Latitude), noSpeed, 0, statusNone)
		if v := d.place(m, r, l); !v.thinned {
			d.sendPosition(m, v, appendPlace(make([]telemetry.Value, 0, 4), int64(p.Longitude), int64(p.Latitude), fine, 1e6, 0))
		}
	case goais.StandardSearchAndRescueAircraftReport:
		r := newReport(int32(p.Longitude), int32(p.Latitude), min(uint16(p.Sog)*10, noSpeed), p.Timestamp, statusNone)
		if v := d.place(m, r, d.limits); !v.thinned {
			d.sendPosition(m, v, aircraftValues(&p))
		}
	case goais.ExtendedClassBPositionReport:
		r := newReport(int32(p.Longitude), int32(p.Latitude), uint16(p.Sog), p.Timestamp, statusNone)
		if v := d.place(m, r, d.limits); !v.thinned {
			d.sendPosition(m, v, extendedValues(&p))
		}
		d.learn(m, partExtended, extendedFacts(&p))
	case goais.AidsToNavigationReport:
		r := newReport(int32(p.Longitude), int32(p.Latitude), noSpeed, p.Timestamp, uint8(truth(p.OffPosition)))
		if v := d.place(m, r, d.limits); !v.thinned {
			d.sendPosition(m, v, aidPosition(&p))
		}
		d.learn(m, partAid, aidFacts(&p))
	case goais.LongRangeAisBroadcastMessage:
		speed := uint16(noSpeed)
		if p.Sog != noSpeedLong {
			speed = uint16(p.Sog) * 10
		}
		r := newReport(int32(p.Longitude)*(fine/coarse), int32(p.Latitude)*(fine/coarse), speed, 0, p.NavigationalStatus)
		r.loose = true
		if v := d.place(m, r, d.limits); !v.thinned {
			d.sendPosition(m, v, longRangeValues(&p))
		}
	}
}

// static reads types 5 and 24.
func (d *Decoder) static(m *message) {
	from := partShip
	if m.kind == 24 {
		from = partName + part(m.bits.get(38, 2)) // 0: A, 1: B; see lengthFits
	}
	if d.unchanged(m, from) {
		return
	}
	switch p := d.unpacker.packet(m).(type) {
	case goais.ShipStaticData:
		d.learn(m, from, shipFacts(&p))
	case goais.StaticDataReport:
		d.learn(m, from, staticFacts(&p))
	}
}

// safety reads the texts of types 12 (to one station) and 14 (to all).
func (d *Decoder) safety(m *message) {
	switch p := d.unpacker.packet(m).(type) {
	case goais.SafetyBroadcastMessage:
		d.send(deviceName(m.mmsi), kindSafety, m.time, appendWord(nil, "text", text(p.Text)))
	case goais.AddessedSafetyMessage:
		values := appendWord(nil, "text", text(p.Text))
		if len(values) > 0 {
			values = appendNumber(values, "to_mmsi", float64(p.DestinationID))
		}
		d.send(deviceName(m.mmsi), kindSafety, m.time, values)
	}
}

// report is the position in the terms of the fleet.
func (p *position) report() report {
	return newReport(p.lon, p.lat, p.speed, p.second, p.status)
}

// values lists what the report says; classA ones have a status and a turn.
func (p *position) values(mmsi uint32, classA bool) []telemetry.Value {
	room := 6 // with one for receivers
	if classA {
		room = 8
	}
	v := make([]telemetry.Value, 0, room)
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

func aidFacts(p *goais.AidsToNavigationReport) facts {
	f := facts{name: aidName(p.Name, p.NameExtension), aidType: p.Type}
	f.length, f.beam = size(p.Dimension)
	return f
}

func shipFacts(p *goais.ShipStaticData) facts {
	f := facts{
		name: text(p.Name), callsign: text(p.CallSign), destination: text(p.Destination), eta: eta(p.Eta),
		imo: p.ImoNumber, shipType: p.Type, draught: uint8(p.MaximumStaticDraught),
	}
	f.length, f.beam = size(p.Dimension)
	return f
}

func extendedFacts(p *goais.ExtendedClassBPositionReport) facts {
	f := facts{name: text(p.Name), shipType: p.Type}
	f.length, f.beam = size(p.Dimension)
	return f
}

func staticFacts(p *goais.StaticDataReport) facts {
	if !p.PartNumber {
		return facts{name: text(p.ReportA.Name)}
	}
	f := facts{callsign: text(p.ReportB.CallSign), shipType: p.ReportB.ShipType}
	if !auxiliary(p.UserID) { // its dimensions hold the number of the mother ship
		f.length, f.beam = size(p.ReportB.Dimension)
	}
	return f
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

// size is length and beam in metres, 0 when not known.
func size(d goais.FieldDimension) (length, beam uint16) {
	return uint16(d.A) + uint16(d.B), uint16(d.C) + uint16(d.D)
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
