package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"haidang/gateway/console/page"
	"haidang/gateway/telemetry"
)

const (
	maxMapped = 5000 // devices on the map
	// afloat is how long a vessel that nobody registered stays on the map after
	// it was last heard.
	afloat = time.Hour
)

// A mappedDevice is a device on the map. Headings are degrees from north.
type mappedDevice struct {
	ID       string             `json:"id"`
	Name     string             `json:"name"`
	Lat      float64            `json:"lat"`
	Lon      float64            `json:"lon"`
	Boat     bool               `json:"boat,omitempty"`
	Severity telemetry.Severity `json:"-"`
	Grave    uint8              `json:"severity"` // 0 none to 4 extreme
	Silent   bool               `json:"silent,omitempty"`
	Heading  *float64           `json:"heading_deg,omitempty"`
	Speed    *float64           `json:"speed_kn,omitempty"`
	Heard    *time.Time         `json:"heard,omitempty"`
	Text     telemetry.Text     `json:"text,omitzero"` // of its gravest warning
	Warnings []mappedWarning    `json:"warnings,omitempty"`
}

type mappedWarning struct {
	ID   string         `json:"id"`
	Text telemetry.Text `json:"text"`
}

// mapped serves GET /api/v1/map: every device that has a place, as a map draws
// it, at most maxMapped.
func (c *Console) mapped(w http.ResponseWriter, r *http.Request) error {
	version := c.desktop.version.Load()
	done, err := c.desktop.mapped.get(version, stateTime, func() (rendering, error) {
		now := time.Now()
		devices, err := c.states()
		if err != nil {
			return rendering{}, err
		}
		body, err := json.Marshal(map[string]any{"devices": mapOf(devices, c.sources.Warnings(false), now)})
		if err != nil {
			return rendering{}, fmt.Errorf("encode the map: %w", err)
		}
		return newRendering(body, now, version)
	})
	if err != nil {
		return err
	}
	writePacked(w, r, http.StatusOK, "application/json", done.body, done.gzip)
	return nil
}

// mapOf places devices and their warnings, which come the gravest first.
func mapOf(devices []page.DeviceState, warnings []telemetry.Warning, now time.Time) []mappedDevice {
	raised := map[string][]telemetry.Warning{}
	for _, w := range warnings {
		if w.State != telemetry.Pending {
			raised[w.Device] = append(raised[w.Device], w)
		}
	}
	out := []mappedDevice{}
	for i := range devices {
		m, ok := placed(&devices[i], now)
		if !ok {
			continue
		}
		for i, w := range raised[m.ID] {
			text := w.Message
			if text.VI == "" && text.EN == "" {
				text.VI, text.EN = w.Rule, w.Rule
			}
			if i == 0 {
				m.Text = text
			}
			m.Severity = max(m.Severity, w.Severity)
			if i < 5 {
				m.Warnings = append(m.Warnings, mappedWarning{w.ID, text})
			}
		}
		m.Grave = uint8(m.Severity)
		if len(out) < maxMapped {
			out = append(out, m)
		}
	}
	return out
}

// placed returns where a device is: where it says, else where it was built.
func placed(d *page.DeviceState, now time.Time) (mappedDevice, bool) {
	m := mappedDevice{ID: d.ID, Name: d.Name, Heard: d.Heard, Silent: d.Silent(now)}
	position, moves := d.Latest[telemetry.KindPosition]
	lat, okLat := position.Values["lat"].(float64)
	lon, okLon := position.Values["lon"].(float64)
	switch {
	case moves && okLat && okLon:
		m.Lat, m.Lon, m.Boat = lat, lon, true
		if name, ok := d.Latest["vessel"].Values["name"].(string); ok && !d.Registered {
			m.Name = name
		}
		if !d.Registered && d.Heard != nil && now.Sub(*d.Heard) > afloat {
			return m, false
		}
	case d.Lat != nil && d.Lon != nil:
		m.Lat, m.Lon = *d.Lat, *d.Lon
	default:
		return m, false
	}
	// The heading of the bow where there is one, else the course: class B
	// transponders have no compass.
	for _, name := range []string{"heading_deg", "course_deg"} {
		if v, ok := position.Values[name].(float64); ok {
			m.Heading = &v
			break
		}
	}
	if v, ok := position.Values["speed_kn"].(float64); ok {
		m.Speed = &v
	}
	return m, true
}
