package rules

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/paulmach/orb"
	"github.com/paulmach/orb/planar"

	"haidang/gateway/telemetry"
)

// A zone is a named area or line on the map, in degrees of longitude and
// latitude (RFC 7946). Its edges are straight lines between the coordinates; a
// zone does not cross the antimeridian.
type zone struct {
	name  string
	area  orb.MultiPolygon
	lines orb.MultiLineString // of a line
	edges []orb.LineString    // of both
	bound orb.Bound
}

// contains reports whether the place lies in the zone, its edge included.
func (z *zone) contains(p orb.Point) bool {
	return len(z.area) > 0 && z.bound.Contains(p) && planar.MultiPolygonContains(z.area, p)
}

type featureCollection struct {
	Type     string    `json:"type"`
	Features []feature `json:"features"`
}

type feature struct {
	Properties struct {
		Name string `json:"name"`
	} `json:"properties"`
	Geometry struct {
		Type        string          `json:"type"`
		Coordinates json.RawMessage `json:"coordinates"`
	} `json:"geometry"`
}

// parseZones reads a GeoJSON FeatureCollection of polygons and lines with a name.
func parseZones(text json.RawMessage) (map[string]*zone, []telemetry.Fault) {
	zones := map[string]*zone{}
	if len(text) == 0 || string(text) == "null" {
		return zones, nil
	}
	var c featureCollection
	if err := json.Unmarshal(text, &c); err != nil {
		return zones, []telemetry.Fault{telemetry.Faultf("zones", "zones are not GeoJSON: %v", err)}
	}
	if c.Type != "FeatureCollection" {
		return zones, []telemetry.Fault{telemetry.Faultf("zones.type", "type %q is not FeatureCollection", c.Type)}
	}
	var faults []telemetry.Fault
	for i := range c.Features {
		at := fmt.Sprintf("zones.features[%d]", i)
		z, fault := c.Features[i].zone()
		switch {
		case fault != nil:
			faults = append(faults, telemetry.Under(at, []telemetry.Fault{*fault})...)
		case zones[z.name] != nil:
			faults = append(faults, telemetry.Faultf(at+".properties.name", "zone %q is there twice", z.name))
		default:
			zones[z.name] = z
		}
	}
	return zones, faults
}

func (f *feature) zone() (*zone, *telemetry.Fault) {
	fault := func(path, format string, args ...any) (*zone, *telemetry.Fault) {
		v := telemetry.Faultf(path, format, args...)
		return nil, &v
	}
	name := f.Properties.Name
	if name == "" {
		return fault("properties.name", "the zone has no name")
	}
	z := &zone{name: name}
	var err error
	switch f.Geometry.Type {
	case "Polygon":
		var p orb.Polygon
		err = json.Unmarshal(f.Geometry.Coordinates, &p)
		z.area = orb.MultiPolygon{p}
	case "MultiPolygon":
		err = json.Unmarshal(f.Geometry.Coordinates, &z.area)
	case "LineString":
		var l orb.LineString
		err = json.Unmarshal(f.Geometry.Coordinates, &l)
		z.lines = orb.MultiLineString{l}
	case "MultiLineString":
		err = json.Unmarshal(f.Geometry.Coordinates, &z.lines)
	default:
		return fault("geometry.type", "zone %q is a %q, expected Polygon, MultiPolygon, LineString or MultiLineString", name, f.Geometry.Type)
	}
	if err == nil {
		err = z.check()
	}
	if err != nil {
		return fault("geometry.coordinates", "zone %q %v", name, err)
	}
	if len(z.area) > 0 {
		z.bound = z.area.Bound()
	} else {
		z.bound = z.lines.Bound()
	}
	return z, nil
}

// check says what is wrong with a zone's coordinates, and gathers its edges.
func (z *zone) check() error {
	if len(z.area)+len(z.lines) == 0 {
		return errors.New("is empty")
	}
	for _, polygon := range z.area {
		if len(polygon) == 0 {
			return errors.New("has a polygon without a ring")
		}
		for _, ring := range polygon {
			if len(ring) < 4 || ring[0] != ring[len(ring)-1] {
				return errors.New("has a ring that is not closed: at least 4 positions, the last one like the first (RFC 7946, 3.1.6)")
			}
			z.edges = append(z.edges, orb.LineString(ring))
		}
	}
	for _, line := range z.lines {
		if len(line) < 2 {
			return errors.New("has a line of less than 2 positions (RFC 7946, 3.1.4)")
		}
		z.edges = append(z.edges, line)
	}
	for _, line := range z.edges {
		for _, p := range line {
			if math.Abs(p.Lon()) > 180 || math.Abs(p.Lat()) > 90 {
				return fmt.Errorf("has the position %v: expected [longitude, latitude] in degrees", p)
			}
		}
	}
	return nil
}
