package serial

import (
	"bytes"
	"errors"
	"math"
	"time"

	"github.com/adrianmo/go-nmea"

	"haidang/gateway/telemetry"
)

// nmeaClock is how far the clock of a GPS receiver may be from ours to be
// believed: old receivers are wrong by 1024 weeks.
const nmeaClock = 10 * time.Minute

// nmeaLine reads the sentences of NMEA 0183 instruments. go-nmea reads the
// fields; what is empty is looked up in the sentence itself, for there it reads
// as 0.
type nmeaLine struct {
	parser      nmea.SentenceParser
	vessel      bool
	transducers []field // of XDR
}

var (
	errChecksum = errors.New("the checksum is wrong or missing")
	errUnused   = errors.New("the sentence is of no use here")
)

// nmeaTypes are the sentences that are used, each with the field that must not
// be empty for it to say anything, or -1.
func nmeaTypes() map[string]int {
	return map[string]int{
		nmea.TypeMDA: -1, nmea.TypeMWD: -1, nmea.TypeMWV: 2, nmea.TypeMTA: 0, nmea.TypeMTW: 0,
		nmea.TypeXDR: -1, nmea.TypeDBT: -1, nmea.TypeDBS: -1, nmea.TypeDPT: 0,
		nmea.TypeRMC: 2, nmea.TypeGGA: 1, nmea.TypeGLL: 0, nmea.TypeGNS: 1, nmea.TypeVTG: -1,
		nmea.TypeHDT: 0, nmea.TypeTHS: 0, nmea.TypeHDG: 0, nmea.TypeROT: 0,
	}
}

// xdrValues are the names that instruments are known to give their
// transducers, by type and name.
func xdrValues() []Value {
	var out []Value
	for _, names := range []struct {
		to   string
		from []string
	}{
		{"weather.temperature_c", []string{"C:AIRTEMP", "C:TempAir", "C:AirTemp", "C:ENV_OUTAIR_T", "C:ENV_OUTSIDE_T"}},
		{"weather.pressure_hpa", []string{"P:BARO", "P:Baro", "P:Barometer", "P:ENV_ATMOS_P"}},
		{"weather.humidity_pct", []string{"H:RH", "H:RelHum", "H:HUMIDITY", "H:ENV_OUTSIDE_H"}},
	} {
		for _, from := range names.from {
			out = append(out, Value{From: from, To: names.to})
		}
	}
	return out
}

func newNMEA(c *Config) *nmeaLine {
	n := &nmeaLine{vessel: c.Vessel, transducers: newFields(override(xdrValues(), c.Values))}
	types := nmeaTypes()
	n.parser = nmea.SentenceParser{
		CustomParsers: map[string]nmea.ParserFunc{nmea.TypeXDR: bareSentence},
		CheckCRC: func(s nmea.BaseSentence, fields string) error {
			if s.Checksum == "" && c.Checksum == Optional {
				return nil
			}
			if len(s.Checksum) < 2 || s.Checksum[:2] != nmea.Checksum(fields) {
				return errChecksum
			}
			return nil
		},
		OnBaseSentence: func(s *nmea.BaseSentence) error {
			must, ok := types[s.Type]
			if !ok || s.Raw[0] != '$' || must >= 0 && blank(s.Fields, must) {
				return errUnused
			}
			return nil
		},
	}
	return n
}

// bareSentence leaves XDR to us: go-nmea refuses the whole sentence for one
// measurement.
func bareSentence(s nmea.BaseSentence) (nmea.Sentence, error) { return s, nil }

// blank reports whether the field is empty or not there.
func blank(fields []string, i int) bool { return i >= len(fields) || fields[i] == "" }

func (n *nmeaLine) decode(line []byte, now time.Time, out sink) verdict {
	s, err := n.parse(line)
	switch {
	case errors.Is(err, errChecksum):
		return badChecksum
	case errors.Is(err, errUnused):
		return unused
	case err != nil:
		return malformed
	}
	o := nmeaOut{sink: out}
	if !n.weather(s, &o) && !n.water(s, &o) && !n.position(s, now, &o) {
		n.xdr(s, &o)
	}
	switch {
	case o.values > 0:
		return used
	case o.bad > 0:
		return malformed
	}
	return unused
}

// parse reads the sentence in the line: after noise, a tag block, or a time that
// a recorder put there. Where that is none because it was cut off by another
// one, it is the last one in the line.
func (n *nmeaLine) parse(line []byte) (nmea.Sentence, error) {
	first, last := bytes.IndexAny(line, "$!"), bytes.LastIndexAny(line, "$!")
	if first < 0 {
		return nil, errors.New("there is no sentence")
	}
	s, err := n.parser.Parse(string(line[first:]))
	if err == nil || errors.Is(err, errUnused) || last == first {
		return s, err
	}
	if s, second := n.parser.Parse(string(line[last:])); second == nil || errors.Is(second, errUnused) {
		return s, second
	}
	return nil, err
}

// nmeaOut counts what it gives on.
type nmeaOut struct {
	sink
	values, bad int
}

func (o *nmeaOut) add(kind, name string, number float64) {
	o.values++
	o.value(kind, telemetry.Value{Name: name, Number: tidy(number)})
}

// convert adds a number in a unit.
func (o *nmeaOut) convert(kind, name string, number float64, unitName string) {
	from, _ := unitOf(unitName)
	to, _ := unitIn(name)
	if s, ok := between(from, to); ok {
		o.add(kind, name, s.of(number))
	}
}

const kindWeather = "weather"

// weather takes MDA, MWD, MWV and MTA.
func (n *nmeaLine) weather(sentence nmea.Sentence, o *nmeaOut) bool {
	switch s := sentence.(type) {
	case nmea.MDA:
		n.mda(s, o)
	case nmea.MWD:
		if s.TrueValid && !blank(s.Fields, 0) {
			o.add(kindWeather, "wind_direction_deg", s.WindDirectionTrue)
		}
		switch {
		case s.MetersValid && !blank(s.Fields, 6):
			o.add(kindWeather, "wind_speed_ms", s.WindSpeedMeters)
		case s.KnotsValid && !blank(s.Fields, 4):
			o.convert(kindWeather, "wind_speed_ms", s.WindSpeedKnots, "kn")
		}
	case nmea.MWV:
		n.mwv(s, o)
	case nmea.MTA:
		o.convert(kindWeather, "temperature_c", s.Temperature, "C")
	default:
		return false
	}
	return true
}

func (n *nmeaLine) mda(s nmea.MDA, o *nmeaOut) {
	f := s.Fields
	switch {
	case s.BarsValid && !blank(f, 2):
		o.convert(kindWeather, "pressure_hpa", s.PressureBar, "bar")
	case s.InchesValid && !blank(f, 0):
		o.convert(kindWeather, "pressure_hpa", s.PressureInch, "inHg")
	}
	if s.AirTempValid && !blank(f, 4) {
		o.add(kindWeather, "temperature_c", s.AirTemp)
	}
	if !blank(f, 8) {
		o.add(kindWeather, "humidity_pct", s.RelativeHum)
	}
	if s.DewPointValid && !blank(f, 10) {
		o.add(kindWeather, "dew_point_c", s.DewPoint)
	}
	if s.TrueValid && !blank(f, 12) {
		o.add(kindWeather, "wind_direction_deg", s.WindDirectionTrue)
	}
	switch {
	case s.MetersValid && !blank(f, 18):
		o.add(kindWeather, "wind_speed_ms", s.WindSpeedMeters)
	case s.KnotsValid && !blank(f, 16):
		o.convert(kindWeather, "wind_speed_ms", s.WindSpeedKnots, "kn")
	}
	if s.WaterTempValid && !blank(f, 6) {
		o.add(kindSea, "sea_temperature_c", s.WaterTemp)
	}
}

// mwvUnits are the units of MWV's wind speed.
var mwvUnits = map[string]string{nmea.UnitMSMWV: "m/s", nmea.UnitKnotsMWV: "kn", nmea.UnitKMHMWV: "km/h", nmea.UnitSMilesHMWV: "mph"}

// mwv takes the wind by its angle to the instrument. On a station that is a
// direction; on a vessel only the speed of the theoretical wind is the wind's.
func (n *nmeaLine) mwv(s nmea.MWV, o *nmeaOut) {
	unitName := mwvUnits[s.WindSpeedUnit]
	if !s.StatusValid || unitName == "" || n.vessel && s.Reference != nmea.TheoreticalMWV {
		return
	}
	o.convert(kindWeather, "wind_speed_ms", s.WindSpeed, unitName)
	if !n.vessel && !blank(s.Fields, 0) {
		o.add(kindWeather, "wind_direction_deg", s.WindAngle)
	}
}

const kindSea = "sea"

// water takes DBT, DBS, DPT and MTW.
func (n *nmeaLine) water(sentence nmea.Sentence, o *nmeaOut) bool {
	switch s := sentence.(type) {
	case nmea.DBT:
		n.depth(o, "depth_transducer_m", s.Fields, s.DepthFeet, s.DepthMeters, s.DepthFathoms)
	case nmea.DBS:
		n.depth(o, "depth_m", s.Fields, s.DepthFeet, s.DepthMeters, s.DepthFathoms)
	case nmea.DPT:
		o.add(kindSea, "depth_transducer_m", s.Depth)
		// NMEA 0183: a positive offset is from the transducer to the surface, a
		// negative one to the keel.
		if s.Offset > 0 {
			o.add(kindSea, "depth_m", s.Depth+s.Offset)
		}
	case nmea.MTW:
		if s.CelsiusValid {
			o.add(kindSea, "sea_temperature_c", s.Temperature)
		}
	default:
		return false
	}
	return true
}

func (n *nmeaLine) depth(o *nmeaOut, name string, fields []string, feet, meters, fathoms float64) {
	switch {
	case !blank(fields, 2):
		o.add(kindSea, name, meters)
	case !blank(fields, 0):
		o.convert(kindSea, name, feet, "ft")
	case !blank(fields, 4):
		o.convert(kindSea, name, fathoms, "fathom")
	}
}

// position takes the sentences of GPS receivers and compasses.
func (n *nmeaLine) position(sentence nmea.Sentence, now time.Time, o *nmeaOut) bool {
	switch s := sentence.(type) {
	case nmea.RMC:
		q, ok := faaQuality(s.FFAMode)
		if s.Validity != nmea.ValidRMC || !ok {
			return true
		}
		o.place(s.Latitude, s.Longitude, q)
		if !blank(s.Fields, 6) {
			o.move("speed_kn", s.Speed, q)
		}
		if !blank(s.Fields, 7) {
			o.move("course_deg", s.Course, q)
		}
		if t := nmea.DateTime(now.UTC().Year(), s.Date, s.Time); s.Date.Valid && s.Time.Valid && t.Sub(now).Abs() <= nmeaClock {
			o.at(telemetry.KindPosition, t)
		}
	case nmea.GGA:
		q, ok := fixQuality(s.FixQuality)
		if !ok {
			return true
		}
		o.place(s.Latitude, s.Longitude, q)
		if !blank(s.Fields, 8) {
			o.move("altitude_m", s.Altitude, q)
		}
	case nmea.GLL:
		if q, ok := faaQuality(s.FFAMode); ok && s.Validity == nmea.ValidGLL {
			o.place(s.Latitude, s.Longitude, q)
		}
	case nmea.GNS:
		n.gns(s, o)
	default:
		return n.course(sentence, o)
	}
	return true
}

// gns takes GNS: one mode for each system, and what the best one says holds.
func (n *nmeaLine) gns(s nmea.GNS, o *nmeaOut) {
	best, ok := telemetry.Bad, false
	for _, mode := range s.Mode {
		if q, good := faaQuality(mode); good && mode != "" {
			best, ok = min(best, q), true
		}
	}
	if !ok {
		return
	}
	o.place(s.Latitude, s.Longitude, best)
	if !blank(s.Fields, 8) {
		o.move("altitude_m", s.Altitude, best)
	}
}

// course takes VTG and the compasses.
func (n *nmeaLine) course(sentence nmea.Sentence, o *nmeaOut) bool {
	switch s := sentence.(type) {
	case nmea.VTG:
		q, ok := faaQuality(s.FFAMode)
		if !ok {
			return true
		}
		if !blank(s.Fields, 4) {
			o.move("speed_kn", s.GroundSpeedKnots, q)
		}
		if !blank(s.Fields, 0) {
			o.move("course_deg", s.TrueTrack, q)
		}
	case nmea.HDT:
		o.move("heading_deg", s.Heading, telemetry.Good)
	case nmea.THS:
		if s.Status == nmea.AutonomousTHS {
			o.move("heading_deg", s.Heading, telemetry.Good)
		}
	case nmea.HDG:
		// Only with the variation is it the heading from true north.
		if !blank(s.Fields, 3) && !blank(s.Fields, 4) {
			heading := s.Heading + signed(s.Deviation, s.DeviationDirection) + signed(s.Variation, s.VariationDirection)
			o.move("heading_deg", math.Mod(heading+720, 360), telemetry.Good)
		}
	case nmea.ROT:
		if s.Valid {
			o.move("turn_degmin", s.RateOfTurn, telemetry.Good)
		}
	default:
		return false
	}
	return true
}

func signed(angle float64, direction string) float64 {
	if direction == nmea.West {
		return -angle
	}
	return angle
}

func (o *nmeaOut) place(lat, lon float64, q telemetry.Quality) {
	o.values++
	o.value(telemetry.KindPosition, telemetry.Value{Name: "lat", Number: tidy(lat), Quality: q})
	o.value(telemetry.KindPosition, telemetry.Value{Name: "lon", Number: tidy(lon), Quality: q})
}

func (o *nmeaOut) move(name string, number float64, q telemetry.Quality) {
	o.values++
	o.value(telemetry.KindPosition, telemetry.Value{Name: name, Number: tidy(number), Quality: q})
}

// faaQuality reads the mode of NMEA 2.3 and later: N is no fix; an estimate, a
// position set by hand and a simulator are suspect.
func faaQuality(mode string) (telemetry.Quality, bool) {
	switch mode {
	case "N":
		return telemetry.Bad, false
	case "E", "M", "S":
		return telemetry.Suspect, true
	}
	return telemetry.Good, true
}

// fixQuality reads the quality of GGA: 0 is no fix, 6 to 8 are as E, M and S.
func fixQuality(fix string) (telemetry.Quality, bool) {
	switch fix {
	case nmea.Invalid, "":
		return telemetry.Bad, false
	case nmea.EST, "7", "8":
		return telemetry.Suspect, true
	}
	return telemetry.Good, true
}

// xdrUnits are the units of XDR by type and unit letter.
var xdrUnits = map[string]string{
	"C:C": "C", "C:F": "F", "C:K": "K", "P:B": "bar", "P:P": "Pa", "P:I": "inHg", "P:H": "hPa", "H:P": "%",
	"D:M": "m", "D:f": "ft", "D:I": "in", "U:V": "V", "A:D": "deg", "S:M": "m/s", "S:N": "kn", "S:K": "km/h", "S:S": "mph",
}

// xdr takes the measurements of XDR, four fields each: type, value, unit, name.
// A damaged one does not take the others with it.
func (n *nmeaLine) xdr(sentence nmea.Sentence, o *nmeaOut) {
	s, ok := sentence.(nmea.BaseSentence)
	if !ok {
		return
	}
	for f := s.Fields; len(f) >= 4; f = f[4:] {
		kind, text, letter, name := f[0], f[1], f[2], f[3]
		if len(kind) != 1 {
			o.bad++ // the fields have shifted: what follows cannot be trusted
			o.lost(lostField)
			return
		}
		if text == "" {
			continue
		}
		number, ok := parseNumber(text)
		if !ok {
			o.bad++
			o.lost(lostField)
			continue
		}
		n.measurement(kind, name, number, letter, o)
	}
}

func (n *nmeaLine) measurement(kind, name string, number float64, letter string, o *nmeaOut) {
	for i := range n.transducers {
		f := &n.transducers[i]
		if f.from != name && f.from != kind+":"+name {
			continue
		}
		unitName, known := xdrUnits[kind+":"+letter]
		s, ok := f.value.scale(unitName)
		if !ok || !known && letter != "" {
			o.lost(lostUnit)
			continue
		}
		o.add(f.kind, f.name, s.of(number))
	}
}
