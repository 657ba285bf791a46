package ais

import (
	"math"
	"time"

	"haidang/gateway/telemetry"
)

// Thin says which positions of a vessel are handed on: the first, every change
// of state (navigation status, under way or stopped, off position, a place that
// appears, is lost or loses its quality), one at least every Heartbeat, and of
// the others those that are Every after and Distance away from the one before.
// Distress devices are never thinned. Every 0 and Distance 0 switch it off.
// Receivers that hear the same vessels want the same: who hears a message first
// decides.
type Thin struct {
	Every     telemetry.Duration `yaml:"every"`     // least time between two positions
	Distance  string             `yaml:"distance"`  // least way between two positions: 50m, 0.5km, 1nmi
	Heartbeat telemetry.Duration `yaml:"heartbeat"` // longest time without a position of a vessel that is heard; default 1m
}

// defaultHeartbeat keeps a moored vessel, which reports every three minutes,
// whole, and one at anchor well below any limit of silence.
const defaultHeartbeat = time.Minute

// limits is Thin in the units of the fleet.
type limits struct {
	every, heartbeat int64 // ms
	distance         float64
	on               bool
}

// standing thins what does not move, base stations, whatever the configuration
// says: they report every ten seconds.
var standing = limits{every: 600_000, heartbeat: 600_000, distance: 0, on: true}

func (t *Thin) limits() limits {
	distance, _ := parseDistance(t.Distance) // Validate tells
	l := limits{every: t.Every.Std().Milliseconds(), heartbeat: t.Heartbeat.Std().Milliseconds(), distance: distance}
	l.on = l.every > 0 || l.distance > 0
	if l.heartbeat == 0 {
		l.heartbeat = defaultHeartbeat.Milliseconds()
	}
	return l
}

// due reports whether the report is to be handed on after what was handed on
// before of this track.
func (t *track) due(r *report, at int64, l limits) bool {
	if !l.on || !t.handed || r.state != t.state {
		return true
	}
	apart := at - t.kept.at
	if apart < 0 {
		apart = -apart
	}
	if apart >= l.heartbeat {
		return true
	}
	return apart >= l.every && (l.distance == 0 || r.placed && metres(t.kept.lat, t.kept.lon, r.lat, r.lon) >= l.distance)
}

// hand notes that the report was handed on.
func (t *track) hand(r *report, at int64) {
	t.handed, t.state = true, r.state
	t.kept = fix{at: at, lat: r.lat, lon: r.lon}
}

// Mean length of a degree of latitude in metres.
const metresPerDegree = 111_195

// metres is the distance of two places in 1/10000 minute, in metres; good to a
// percent below 100 km, which is all that is asked of it.
func metres(lat1, lon1, lat2, lon2 int32) float64 {
	dlat := float64(lat2) - float64(lat1)
	dlon := math.Abs(float64(lon2) - float64(lon1))
	if dlon > 180*fine {
		dlon = 360*fine - dlon
	}
	dlon *= math.Cos((float64(lat1) + float64(lat2)) * (math.Pi / 360 / fine))
	return math.Sqrt(dlat*dlat+dlon*dlon) * (metresPerDegree / float64(fine))
}
