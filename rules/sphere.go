package rules

import (
	"math"

	"github.com/paulmach/orb"
)

// earthRadius is the mean radius of WGS 84's ellipsoid, (2a+b)/3, in metres.
const earthRadius = 6371008.8

const radians = math.Pi / 180

// metres is the great-circle distance between two places in degrees (haversine).
func metres(a, b orb.Point) float64 {
	sinLat := math.Sin((b.Lat() - a.Lat()) * radians / 2)
	sinLon := math.Sin((b.Lon() - a.Lon()) * radians / 2)
	h := sinLat*sinLat + math.Cos(a.Lat()*radians)*math.Cos(b.Lat()*radians)*sinLon*sinLon
	return 2 * earthRadius * math.Asin(min(1, math.Sqrt(h)))
}

// distance returns how far the place is from the zone's edge or line, in metres,
// and 0 inside. The nearest place of each edge is sought on a map whose scale is
// right half way to it; the distance to the nearest of them is that on the sphere.
func (z *zone) distance(p orb.Point) float64 {
	if z.contains(p) {
		return 0
	}
	sin, cos := math.Sincos(p.Lat() * radians)
	// scale is the length of a degree of longitude against one of latitude half
	// way to the latitude that lies dy degrees from p (Taylor).
	scale := func(dy float64) float64 {
		half := dy / 2 * radians
		return max(0, cos-sin*half-cos*half*half/2)
	}
	least, at := math.Inf(1), orb.Point{}
	for _, line := range z.edges {
		for i := 1; i < len(line); i++ {
			ax, ay := line[i-1].Lon()-p.Lon(), line[i-1].Lat()-p.Lat()
			dx, dy := line[i].Lon()-line[i-1].Lon(), line[i].Lat()-line[i-1].Lat()
			k := foot(ax, ay, dx, dy, cos)
			for range 2 {
				k = foot(ax, ay, dx, dy, scale(ay+k*dy))
			}
			x, y := (ax+k*dx)*scale(ay+k*dy), ay+k*dy
			if d := x*x + y*y; d < least {
				least, at = d, orb.Point{p.Lon() + ax + k*dx, p.Lat() + y}
			}
		}
	}
	return metres(p, at)
}

// foot returns where on the segment that begins at (ax, ay) and goes by (dx, dy)
// the origin's nearest place lies, as a part of it; x is scaled.
func foot(ax, ay, dx, dy, scale float64) float64 {
	ax, dx = ax*scale, dx*scale
	d := dx*dx + dy*dy
	if d == 0 {
		return 0
	}
	return max(0, min(1, -(ax*dx+ay*dy)/d))
}

// crossed reports whether the step from one place to another crosses or reaches
// one of the zone's lines. A step that begins on a line does not cross it: that
// was the step before.
func (z *zone) crossed(from, to orb.Point) bool {
	if from == to || !z.bound.Intersects((orb.LineString{from, to}).Bound()) {
		return false
	}
	for _, line := range z.lines {
		met, began := false, false
		for i := 1; i < len(line); i++ {
			met = met || meet(from, to, line[i-1], line[i])
			began = began || on(from, line[i-1], line[i])
		}
		if met && !began {
			return true
		}
	}
	return false
}

// turn tells on which side of the line from a to b the place c lies: positive
// left, negative right, 0 on it.
func turn(a, b, c orb.Point) float64 {
	return (b[0]-a[0])*(c[1]-a[1]) - (b[1]-a[1])*(c[0]-a[0])
}

// on reports whether p lies on the segment from a to b.
func on(p, a, b orb.Point) bool {
	return turn(a, b, p) == 0 && min(a[0], b[0]) <= p[0] && p[0] <= max(a[0], b[0]) && min(a[1], b[1]) <= p[1] && p[1] <= max(a[1], b[1])
}

// meet reports whether two segments have a place in common.
func meet(p, q, a, b orb.Point) bool {
	if on(q, a, b) || on(a, p, q) || on(b, p, q) {
		return true
	}
	return turn(p, q, a)*turn(p, q, b) < 0 && turn(a, b, p)*turn(a, b, q) < 0
}
