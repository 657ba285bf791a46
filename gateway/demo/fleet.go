package demo

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"haidang/gateway/telemetry"
)

const (
	metresPerDegree = 111_320.0       // of latitude; WGS 84, good to 0.5 % here
	knotsPerMS      = 3600.0 / 1852.0 // one knot is 1852 m per hour
	staticEvery     = 20 * time.Second
	silentFromS     = 25.0 // of the cycle
	silentToS       = 62.0
	leaverRadiusM   = 60.0
)

// The corners of the waters where the boats work, degrees; well inside
// zones.geojson. In the order coast NW, coast SE, sea SE, sea NW.
var workingWaters = [4][2]float64{{107.68, 16.66}, {108.05, 16.46}, {108.15, 16.55}, {107.82, 16.80}}

// Where the circles of the boat that leaves its zone have their centre: 20 m
// inside the middle of the zone's seaward edge, so that it is outside for some
// 35 s of each cycle.
const leaverLat, leaverLon = 16.649884, 108.089857

// A fix is where a boat is and how it moves.
type fix struct {
	lat, lon  float64 // degrees, WGS 84
	speedKn   float64
	courseDeg float64 // over ground, 0..360
}

// A boat works along an ellipse, as trawlers and purse seiners do.
type boat struct {
	device    telemetry.Device
	mmsi      uint32
	classA    bool
	lengthM   float64
	plate     string // name as sent: capital ASCII letters, digits and space
	callSign  string
	port      string        // as sent
	every     time.Duration // between positions
	offset    time.Duration // of its first position after the start
	lat, lon  float64       // centre of the ellipse
	majorM    float64
	minorM    float64
	tilt      float64 // radians, of the major axis from east
	periodS   float64
	startTurn float64 // radians
}

// newFleet makes the boats of the registered vessels. Tracks depend on the
// vessel's number and the seed.
func newFleet(list []telemetry.Device, s storm) ([]boat, error) {
	var fleet []boat
	for i, d := range vessels(list) {
		b, err := newBoat(d, i, s)
		if err != nil {
			return nil, err
		}
		fleet = append(fleet, b)
	}
	return fleet, nil
}

func newBoat(d telemetry.Device, i int, s storm) (boat, error) {
	mmsi, err := strconv.ParseUint(strings.TrimPrefix(d.ID, vesselPrefix), 10, 30)
	if err != nil {
		return boat{}, fmt.Errorf("vessel %q: its id is not mmsi- and nine digits: %w", d.ID, err)
	}
	h := s.seed ^ mmsi*0x9E3779B97F4A7C15
	draw := func(low, high float64) float64 {
		h += 0x9E3779B97F4A7C15
		return low + (high-low)*unit(h)
	}
	lengthM, _ := d.Facts["length_m"].(float64)
	port, _ := d.Facts["port"].(string)
	b := boat{
		device: d, mmsi: uint32(mmsi), classA: d.Facts["ais_class"] == "A", lengthM: lengthM,
		plate: strings.ToUpper(d.Name), callSign: fmt.Sprintf("XV%04d", mmsi%10_000), port: ascii(port),
		every:  time.Duration(draw(2000, 3000)) * time.Millisecond,
		majorM: draw(350, 900), tilt: draw(0, math.Pi), startTurn: draw(0, 2*math.Pi),
	}
	b.offset = time.Duration(draw(0, b.every.Seconds()) * float64(time.Second))
	b.minorM = b.majorM * draw(0.5, 0.9)
	// A trawler tows at 2.5 to 4.5 knots.
	b.periodS = 2 * math.Pi * b.majorM / (draw(2.5, 4.5) / knotsPerMS)
	along := (float64(i%10) + draw(0.1, 0.9)) / 10
	out := (float64(i/10) + draw(0.1, 0.9)) / 3
	b.lon = bilinear(0, along, out)
	b.lat = bilinear(1, along, out)
	if d.ID == leaverBoat {
		b.lat, b.lon = leaverLat, leaverLon
		b.majorM, b.minorM, b.periodS, b.tilt = leaverRadiusM, leaverRadiusM, cycleS, 0
		b.startTurn = -3 * math.Pi / 4 // it begins at the landward side of its circle
	}
	return b, nil
}

// bilinear interpolates coordinate axis (0 longitude, 1 latitude) between the
// corners of workingWaters.
func bilinear(axis int, along, out float64) float64 {
	w := workingWaters
	coast := w[0][axis]*(1-along) + w[1][axis]*along
	sea := w[3][axis]*(1-along) + w[2][axis]*along
	return coast*(1-out) + sea*out
}

// at returns the boat's fix at t seconds of the story; speed is the story's.
func (b *boat) at(t, speed float64) fix {
	turn := b.startTurn + 2*math.Pi*t/b.periodS
	rate := 2 * math.Pi / b.periodS * speed // radians per second of the clock
	sinT, cosT := math.Sincos(turn)
	sinA, cosA := math.Sincos(b.tilt)
	x, y := b.majorM*cosT, b.minorM*sinT // metres
	vx, vy := -b.majorM*sinT*rate, b.minorM*cosT*rate
	east, north := x*cosA-y*sinA, x*sinA+y*cosA
	vEast, vNorth := vx*cosA-vy*sinA, vx*sinA+vy*cosA
	course := math.Atan2(vEast, vNorth) * 180 / math.Pi
	return fix{
		lat:       b.lat + north/metresPerDegree,
		lon:       b.lon + east/(metresPerDegree*math.Cos(b.lat*math.Pi/180)),
		speedKn:   math.Hypot(vEast, vNorth) * knotsPerMS,
		courseDeg: math.Mod(course+360, 360),
	}
}

// silent reports whether the boat's transponder is off.
func (b *boat) silent(phaseS float64) bool {
	return b.device.ID == silentBoat && phaseS >= silentFromS && phaseS < silentToS
}

// ascii maps the ports' names to the letters that AIS can send (ITU-R M.1371-5,
// table 47: capital ASCII only).
func ascii(port string) string {
	switch port {
	case "Thuận An":
		return "THUAN AN"
	case "Chân Mây":
		return "CHAN MAY"
	}
	return ""
}
