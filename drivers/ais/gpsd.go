package ais

import (
	"strconv"

	goais "github.com/BertoldVdb/go-ais"
)

// A jsonWriter writes messages in gpsd's form, class AIS.
type jsonWriter struct {
	unpacker *unpacker
	position position
	scaled   bool
	buf      []byte // reused
}

func newJSONWriter(scaled bool) *jsonWriter {
	return &jsonWriter{unpacker: newUnpacker(), scaled: scaled}
}

// message returns the message's line, valid until the next call, or nil when
// the payload cannot be read.
func (j *jsonWriter) message(m *message) []byte {
	j.buf = append(j.buf[:0], `{"class":"AIS"`...)
	j.num("type", int64(m.kind))
	j.num("repeat", int64(m.bits.get(6, 2)))
	j.num("mmsi", int64(m.mmsi))
	j.flag("scaled", j.scaled)
	switch m.kind {
	case 1, 2, 3:
		j.position.readClassA(&m.bits)
		j.classA(&j.position)
	case 18:
		j.position.readClassB(&m.bits)
		j.classB(&j.position, &m.bits)
	default:
		if !j.packet(j.unpacker.packet(m), &m.bits) {
			return nil
		}
	}
	j.buf = append(j.buf, "}\n"...)
	return j.buf
}

func (j *jsonWriter) packet(packet goais.Packet, b *bits) bool {
	switch p := packet.(type) {
	case goais.BaseStationReport:
		j.baseStation(&p)
	case goais.ShipStaticData:
		j.ship(&p)
	case goais.StandardSearchAndRescueAircraftReport:
		j.aircraft(&p, b)
	case goais.ExtendedClassBPositionReport:
		j.extended(&p)
	case goais.AidsToNavigationReport:
		j.aid(&p)
	case goais.StaticDataReport:
		j.static(&p, b)
	case goais.LongRangeAisBroadcastMessage:
		j.longRange(&p)
	default:
		return j.binary(packet)
	}
	return true
}

func (j *jsonWriter) classA(p *position) {
	j.status(p.status)
	switch {
	case !j.scaled:
		j.num("turn", int64(p.turn))
	case p.turn == noTurn:
		j.word("turn", "nan")
	case p.turn == 127:
		j.word("turn", "fastright")
	case p.turn == -127:
		j.word("turn", "fastleft")
	default:
		rate := float64(p.turn) / 4.733
		if rate < 0 {
			rate = -rate
		}
		turn := int64(rate*rate + 0.5)
		if p.turn < 0 {
			turn = -turn
		}
		j.num("turn", turn)
	}
	if j.scaled && p.speed >= noSpeed-1 {
		j.word("speed", limit(p.speed == noSpeed, "fast"))
	} else {
		j.tenth("speed", int64(p.speed))
	}
	j.flag("accuracy", p.accuracy)
	j.place("lon", int64(p.lon), fine)
	j.place("lat", int64(p.lat), fine)
	j.tenth("course", int64(p.course))
	j.num("heading", int64(p.heading))
	j.num("second", int64(p.second))
	j.num("maneuver", int64(p.maneuver))
	j.flag("raim", p.raim)
	j.num("radio", int64(p.radio))
}

func (j *jsonWriter) classB(p *position, b *bits) {
	j.num("reserved", int64(b.get(38, 8)))
	j.tenth("speed", int64(p.speed))
	j.flag("accuracy", p.accuracy)
	j.place("lon", int64(p.lon), fine)
	j.place("lat", int64(p.lat), fine)
	j.tenth("course", int64(p.course))
	j.num("heading", int64(p.heading))
	j.num("second", int64(p.second))
	j.num("regional", int64(b.get(139, 2)))
	j.flag("cs", b.flag(141))
	j.flag("display", b.flag(142))
	j.flag("dsc", b.flag(143))
	j.flag("band", b.flag(144))
	j.flag("msg22", b.flag(145))
	j.flag("raim", p.raim)
	j.num("radio", int64(p.radio))
}

func (j *jsonWriter) baseStation(p *goais.BaseStationReport) {
	j.key("timestamp")
	j.buf = append(j.buf, '"')
	j.buf = appendPadded(j.buf, int64(p.UtcYear), 4)
	for _, f := range [...]struct {
		sep byte
		n   uint8
	}{{'-', p.UtcMonth}, {'-', p.UtcDay}, {'T', p.UtcHour}, {':', p.UtcMinute}, {':', p.UtcSecond}} {
		j.buf = appendPadded(append(j.buf, f.sep), int64(f.n), 2)
	}
	j.buf = append(j.buf, `Z"`...)
	j.flag("accuracy", p.PositionAccuracy)
	j.place("lon", int64(p.Longitude), fine)
	j.place("lat", int64(p.Latitude), fine)
	j.epfd(p.FixType)
	j.flag("raim", p.Raim)
	j.num("radio", int64(p.CommunicationState))
}

func (j *jsonWriter) ship(p *goais.ShipStaticData) {
	j.num("imo", int64(p.ImoNumber))
	j.num("ais_version", int64(p.AisVersion))
	j.word("callsign", text(p.CallSign))
	j.word("shipname", text(p.Name))
	j.shipType(p.Type)
	j.dimension(p.Dimension)
	j.epfd(p.FixType)
	j.key("eta")
	j.buf = appendPadded(append(j.buf, '"'), int64(p.Eta.Month), 2)
	j.buf = appendPadded(append(j.buf, '-'), int64(p.Eta.Day), 2)
	j.buf = appendPadded(append(j.buf, 'T'), int64(p.Eta.Hour), 2)
	j.buf = appendPadded(append(j.buf, ':'), int64(p.Eta.Minute), 2)
	j.buf = append(j.buf, `Z"`...)
	j.tenth("draught", int64(p.MaximumStaticDraught))
	j.word("destination", text(p.Destination))
	j.bit("dte", p.Dte)
}

func (j *jsonWriter) aircraft(p *goais.StandardSearchAndRescueAircraftReport, b *bits) {
	if j.scaled && p.Altitude >= noAltitude-1 {
		j.word("alt", limit(p.Altitude == noAltitude, "high"))
	} else {
		j.num("alt", int64(p.Altitude))
	}
	if j.scaled && p.Sog >= noSpeed-1 {
		j.word("speed", limit(p.Sog == noSpeed, "fast"))
	} else {
		j.num("speed", int64(p.Sog))
	}
	j.flag("accuracy", p.PositionAccuracy)
	j.place("lon", int64(p.Longitude), fine)
	j.place("lat", int64(p.Latitude), fine)
	j.tenth("course", int64(p.Cog))
	j.num("second", int64(p.Timestamp))
	j.num("regional", int64(b.get(134, 8)))
	j.bit("dte", p.Dte)
	j.flag("raim", p.Raim)
	j.num("radio", int64(b.get(148, 20)))
}

func (j *jsonWriter) extended(p *goais.ExtendedClassBPositionReport) {
	j.num("reserved", int64(p.Spare1))
	j.tenth("speed", int64(p.Sog))
	j.flag("accuracy", p.PositionAccuracy)
	j.place("lon", int64(p.Longitude), fine)
	j.place("lat", int64(p.Latitude), fine)
	j.tenth("course", int64(p.Cog))
	j.num("heading", int64(p.TrueHeading))
	j.num("second", int64(p.Timestamp))
	j.num("regional", int64(p.Spare2))
	j.word("shipname", text(p.Name))
	j.shipType(p.Type)
	j.dimension(p.Dimension)
	j.epfd(p.FixType)
	j.flag("raim", p.Raim)
	j.bit("dte", p.Dte)
	j.flag("assigned", p.AssignedMode)
}

func (j *jsonWriter) aid(p *goais.AidsToNavigationReport) {
	j.num("aid_type", int64(p.Type))
	j.word("aid_type_text", aidTypes[p.Type&31])
	j.word("name", aidName(p.Name, p.NameExtension))
	j.place("lon", int64(p.Longitude), fine)
	j.place("lat", int64(p.Latitude), fine)
	j.flag("accuracy", p.PositionAccuracy)
	j.dimension(p.Dimension)
	j.epfd(p.Fixtype)
	j.num("second", int64(p.Timestamp))
	j.num("regional", int64(p.AtoN))
	j.flag("off_position", p.OffPosition)
	j.flag("raim", p.Raim)
	j.flag("virtual_aid", p.VirtualAtoN)
}

func (j *jsonWriter) static(p *goais.StaticDataReport, b *bits) {
	if !p.PartNumber {
		j.word("part", "A")
		j.word("shipname", text(p.ReportA.Name))
		return
	}
	j.word("part", "B")
	r := &p.ReportB
	j.shipType(r.ShipType)
	j.word("vendorid", text(r.VendorIDName))
	j.num("model", int64(r.VenderIDModel))
	j.num("serial", int64(r.VenderIDSerial))
	j.word("callsign", text(r.CallSign))
	if auxiliary(p.UserID) {
		j.num("mothership_mmsi", int64(b.get(132, 30)))
		return
	}
	j.dimension(r.Dimension)
}

func (j *jsonWriter) longRange(p *goais.LongRangeAisBroadcastMessage) {
	j.status(p.NavigationalStatus)
	j.flag("accuracy", p.PositionAccuracy)
	j.place("lon", int64(p.Longitude), coarse)
	j.place("lat", int64(p.Latitude), coarse)
	j.num("speed", int64(p.Sog))
	j.num("course", int64(p.Cog))
	j.flag("raim", p.Raim)
	j.flag("gnss", !p.PositionLatency) // 0: a GNSS position not older than 5 s
}

// limit is gpsd's word for a value that is not available or over the scale.
func limit(none bool, over string) string {
	if none {
		return "nan"
	}
	return over
}

func (j *jsonWriter) status(s uint8) {
	j.num("status", int64(s))
	j.word("status_text", statuses[s&15])
}

func (j *jsonWriter) shipType(t uint8) {
	j.num("shiptype", int64(t))
	j.word("shiptype_text", shipTypeText(t))
}

func (j *jsonWriter) epfd(f uint8) {
	j.num("epfd", int64(f))
	j.word("epfd_text", fixTypes[min(int(f), len(fixTypes)-1)])
}

func (j *jsonWriter) dimension(d goais.FieldDimension) {
	j.num("to_bow", int64(d.A))
	j.num("to_stern", int64(d.B))
	j.num("to_port", int64(d.C))
	j.num("to_starboard", int64(d.D))
}

func (j *jsonWriter) key(k string) {
	j.buf = append(j.buf, ',', '"')
	j.buf = append(j.buf, k...)
	j.buf = append(j.buf, '"', ':')
}

func (j *jsonWriter) num(k string, n int64) {
	j.key(k)
	j.buf = strconv.AppendInt(j.buf, n, 10)
}

func (j *jsonWriter) flag(k string, b bool) {
	j.key(k)
	j.buf = strconv.AppendBool(j.buf, b)
}

// bit writes a flag as 0 or 1, as gpsd does for dte.
func (j *jsonWriter) bit(k string, b bool) { j.num(k, int64(truth(b))) }

// tenth writes a number that is sent in tenths.
func (j *jsonWriter) tenth(k string, n int64) {
	if !j.scaled {
		j.num(k, n)
		return
	}
	j.fixed(k, float64(n)/10, 1)
}

// place writes an angle that is sent in parts of a degree.
func (j *jsonWriter) place(k string, n, perDegree int64) {
	switch {
	case !j.scaled:
		j.num(k, n)
	case perDegree == fine:
		j.fixed(k, float64(n)/fine, 6)
	default:
		j.fixed(k, float64(n)/coarse, 4)
	}
}

func (j *jsonWriter) fixed(k string, f float64, decimals int) {
	j.key(k)
	j.buf = strconv.AppendFloat(j.buf, f, 'f', decimals, 64)
}

// word writes a text of six-bit characters: of ASCII 32 to 95 only two need
// escaping in JSON.
func (j *jsonWriter) word(k, s string) {
	j.key(k)
	j.buf = append(j.buf, '"')
	for i := 0; i < len(s); i++ {
		if s[i] == '"' || s[i] == '\\' {
			j.buf = append(j.buf, '\\')
		}
		j.buf = append(j.buf, s[i])
	}
	j.buf = append(j.buf, '"')
}

// bytes writes bits (one byte each) as gpsd does: their number, a colon, and
// hexadecimal digits with the last byte filled up by zeros.
func (j *jsonWriter) bytes(k string, b []byte) {
	j.key(k)
	j.buf = append(j.buf, '"')
	j.buf = strconv.AppendInt(j.buf, int64(len(b)), 10)
	j.buf = append(j.buf, ':')
	const hex = "0123456789abcdef"
	for len(b) > 0 {
		var octet byte
		for i, bit := range b[:min(8, len(b))] {
			octet |= bit << (7 - i)
		}
		j.buf = append(j.buf, hex[octet>>4], hex[octet&15])
		b = b[min(8, len(b)):]
	}
	j.buf = append(j.buf, '"')
}

func appendPadded(b []byte, n int64, width int) []byte {
	for limit := int64(10); width > 1; width, limit = width-1, limit*10 {
		if n < limit {
			b = append(b, '0')
		}
	}
	return strconv.AppendInt(b, n, 10)
}
