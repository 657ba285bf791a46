package ais

import (
	"fmt"
	"math"
	"time"

	"haidang/gateway/telemetry"
)

// Meteorological and hydrological observations: application identifier DAC 1,
// FI 31 (IMO SN.1/Circ.289, section 1) and its forerunner FI 11
// (SN/Circ.236), which is still on the air.

// A measure is one number of an observation. Its codes outside least..most mean
// "not available" or are no measurement, and make no value.
type measure struct {
	kind, value string
	at, width   int // bits from the beginning of the application's own
	signed      bool
	least, most int64   // of the number as sent
	scale, add  float64 // value = (number*scale) + add
	digits      float64 // the value is rounded to 1/digits
}

const (
	knotMS   = 1852.0 / 3600 // knots in m/s
	nauticM  = 1852.0        // nautical miles in m
	metBits  = 294           // of FI 31 without the spare bits at its end
	metBits1 = 290           // of FI 11
)

// observations31 are the numbers of FI 31 (Circ.289, table 1.1).
var observations31 = [...]measure{
	{kindWeather, "wind_speed_ms", 66, 7, false, 0, 126, knotMS, 0, 100},
	{kindWeather, "wind_gust_ms", 73, 7, false, 0, 126, knotMS, 0, 100},
	{kindWeather, "wind_direction_deg", 80, 9, false, 0, 359, 1, 0, 1},
	{kindWeather, "gust_direction_deg", 89, 9, false, 0, 359, 1, 0, 1},
	{kindWeather, "temperature_c", 98, 11, true, -600, 600, 0.1, 0, 10},
	{kindWeather, "humidity_pct", 109, 7, false, 0, 100, 1, 0, 1},
	{kindWeather, "dew_point_c", 116, 10, true, -200, 500, 0.1, 0, 10},
	{kindWeather, "pressure_hpa", 126, 9, false, 1, 401, 1, 799, 1},
	{kindWeather, "visibility_m", 138, 7, false, 0, 126, nauticM / 10, 0, 1},
	{kindSea, "sea_level_m", 145, 12, false, 0, 4000, 0.01, -10, 100},
	{kindSea, "current_speed_ms", 159, 8, false, 0, 251, knotMS / 10, 0, 100},
	{kindSea, "current_direction_deg", 167, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current2_speed_ms", 176, 8, false, 0, 251, knotMS / 10, 0, 100},
	{kindSea, "current2_direction_deg", 184, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current2_depth_m", 193, 5, false, 0, 30, 1, 0, 1},
	{kindSea, "current3_speed_ms", 198, 8, false, 0, 251, knotMS / 10, 0, 100},
	{kindSea, "current3_direction_deg", 206, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current3_depth_m", 215, 5, false, 0, 30, 1, 0, 1},
	{kindSea, "wave_height_m", 220, 8, false, 0, 251, 0.1, 0, 10},
	{kindSea, "wave_period_s", 228, 6, false, 0, 60, 1, 0, 1},
	{kindSea, "wave_direction_deg", 234, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "swell_height_m", 243, 8, false, 0, 251, 0.1, 0, 10},
	{kindSea, "swell_period_s", 251, 6, false, 0, 60, 1, 0, 1},
	{kindSea, "swell_direction_deg", 257, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "sea_state_bft", 266, 4, false, 0, 12, 1, 0, 1},
	{kindSea, "sea_temperature_c", 270, 10, true, -100, 500, 0.1, 0, 10},
	{kindSea, "sea_salinity_ppt", 283, 9, false, 0, 500, 0.1, 0, 10},
}

// observations11 are the numbers of FI 11 (Circ.236, annex 2, appendix 1).
var observations11 = [...]measure{
	{kindWeather, "wind_speed_ms", 65, 7, false, 0, 120, knotMS, 0, 100},
	{kindWeather, "wind_gust_ms", 72, 7, false, 0, 120, knotMS, 0, 100},
	{kindWeather, "wind_direction_deg", 79, 9, false, 0, 359, 1, 0, 1},
	{kindWeather, "gust_direction_deg", 88, 9, false, 0, 359, 1, 0, 1},
	{kindWeather, "temperature_c", 97, 11, false, 0, 1200, 0.1, -60, 10},
	{kindWeather, "humidity_pct", 108, 7, false, 0, 100, 1, 0, 1},
	{kindWeather, "dew_point_c", 115, 10, false, 0, 700, 0.1, -20, 10},
	{kindWeather, "pressure_hpa", 125, 9, false, 0, 400, 1, 800, 1},
	{kindWeather, "visibility_m", 136, 8, false, 0, 250, nauticM / 10, 0, 1},
	{kindSea, "sea_level_m", 144, 9, false, 0, 400, 0.1, -10, 10},
	{kindSea, "current_speed_ms", 155, 8, false, 0, 250, knotMS / 10, 0, 100},
	{kindSea, "current_direction_deg", 163, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current2_speed_ms", 172, 8, false, 0, 250, knotMS / 10, 0, 100},
	{kindSea, "current2_direction_deg", 180, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current2_depth_m", 189, 5, false, 0, 30, 1, 0, 1},
	{kindSea, "current3_speed_ms", 194, 8, false, 0, 250, knotMS / 10, 0, 100},
	{kindSea, "current3_direction_deg", 202, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "current3_depth_m", 211, 5, false, 0, 30, 1, 0, 1},
	{kindSea, "wave_height_m", 216, 8, false, 0, 250, 0.1, 0, 10},
	{kindSea, "wave_period_s", 224, 6, false, 0, 60, 1, 0, 1},
	{kindSea, "wave_direction_deg", 230, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "swell_height_m", 239, 8, false, 0, 250, 0.1, 0, 10},
	{kindSea, "swell_period_s", 247, 6, false, 0, 60, 1, 0, 1},
	{kindSea, "swell_direction_deg", 253, 9, false, 0, 359, 1, 0, 1},
	{kindSea, "sea_state_bft", 262, 4, false, 0, 12, 1, 0, 1},
	{kindSea, "sea_temperature_c", 266, 10, false, 0, 600, 0.1, -10, 10},
	{kindSea, "sea_salinity_ppt", 279, 9, false, 0, 500, 0.1, 0, 10},
}

// application reads the contents of types 6 and 8 that make readings.
func (d *Decoder) application(m *message) {
	id, from := 40, 56
	if m.kind == 6 { // sequence, destination, retransmit flag before it
		id, from = 72, 88
	}
	if m.bits.get(id, 10) == 1 {
		switch fi := m.bits.get(id+10, 6); {
		case fi == 31 && m.bits.n >= from+metBits:
			// longitude 25 bits, latitude 24, accuracy 1, day 5, hour 5, minute 6
			d.observed(m, from, place3(m.bits.signed(from, 25), m.bits.signed(from+25, 24)), from+50, observations31[:])
			return
		case fi == 11 && m.bits.n >= from+metBits1:
			// latitude 24 bits, longitude 25, day 5, hour 5, minute 6
			d.observed(m, from, place3(m.bits.signed(from+24, 25), m.bits.signed(from, 24)), from+49, observations11[:])
			return
		}
	}
	d.parser.counts.Unread[m.kind]++
}

// observed hands over an observation: weather and sea.
func (d *Decoder) observed(m *message, from int, at site, when int, list []measure) {
	device := deviceName(m.mmsi)
	if m.mmsi < 10_000_000 && at.known {
		// A coast station (00MIDxxxx) speaks for many instruments: their places
		// tell them apart.
		device += "." + at.name()
		d.send(device, telemetry.KindPosition, m.time, []telemetry.Value{{Name: "lat", Number: at.lat}, {Name: "lon", Number: at.lon}})
	}
	observed := m.time
	if t, ok := observedAt(m.bits.get(when, 5), m.bits.get(when+5, 5), m.bits.get(when+10, 6), d.at); ok {
		observed = t
	}
	d.send(device, kindWeather, observed, measured(&m.bits, from, kindWeather, list))
	d.send(device, kindSea, observed, measured(&m.bits, from, kindSea, list))
}

func measured(b *bits, from int, kind string, list []measure) []telemetry.Value {
	var values []telemetry.Value
	for i := range list {
		q := &list[i]
		if q.kind != kind {
			continue
		}
		n := int64(b.get(from+q.at, q.width))
		if q.signed {
			n = b.signed(from+q.at, q.width)
		}
		if n < q.least || n > q.most {
			continue
		}
		if values == nil {
			values = make([]telemetry.Value, 0, 10)
		}
		values = appendNumber(values, q.value, math.Round((float64(n)*q.scale+q.add)*q.digits)/q.digits)
	}
	return values
}

// A site is where an instrument stands.
type site struct {
	lat, lon float64 // degrees
	known    bool
}

// place3 reads a place in 1/1000 minute.
func place3(lon, lat int64) site {
	const perDegree = 60_000
	if lon > 180*perDegree || lon < -180*perDegree || lat > 90*perDegree || lat < -90*perDegree {
		return site{}
	}
	return site{lat: math.Round(float64(lat)/perDegree*1e5) / 1e5, lon: math.Round(float64(lon)/perDegree*1e5) / 1e5, known: true}
}

// name spells the place to a minute, as 1628n10735e (ISO 6709 without signs).
func (s site) name() string {
	spell := func(degrees float64, width int, plus, minus string) string {
		if degrees < 0 {
			degrees, plus = -degrees, minus
		}
		minutes := int(math.Round(degrees * 60))
		return fmt.Sprintf("%0*d%s", width, minutes/60*100+minutes%60, plus)
	}
	return spell(s.lat, 4, "n", "s") + spell(s.lon, 5, "e", "w")
}

// Bounds of what an observation's own time is believed: a message repeats the
// newest observation for hours when an instrument is silent.
const (
	observedBefore = 24 * time.Hour
	observedAfter  = 15 * time.Minute
)

// observedAt completes day, hour and minute (UTC) with the month and year of
// now. It reports false when one is not available or the time is not within the
// bounds.
func observedAt(day, hour, minute uint64, now time.Time) (time.Time, bool) {
	if now.IsZero() || day < 1 || day > 31 || hour > 23 || minute > 59 {
		return time.Time{}, false
	}
	now = now.UTC()
	for months := 1; months >= -1; months-- {
		t := time.Date(now.Year(), now.Month()+time.Month(months), int(day), int(hour), int(minute), 0, 0, time.UTC)
		if t.Day() == int(day) && t.Sub(now) <= observedAfter && now.Sub(t) <= observedBefore {
			return t, true
		}
	}
	return time.Time{}, false
}
