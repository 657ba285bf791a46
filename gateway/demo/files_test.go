package demo

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"os"
	"testing"
	"time"

	"github.com/paulmach/orb"
	"github.com/paulmach/orb/geojson"
	"github.com/paulmach/orb/planar"
	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

func decodeStrict(t *testing.T, name string, text []byte, into any) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func embedded(t *testing.T, name string) []byte {
	t.Helper()
	text, err := Files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// gatewayFile has the keys that the demo may use.
type gatewayFile struct {
	Gateway string
	Broker  struct{ Listen string }
	Influx  struct{ Listen string }
	Console struct{ Listen string }
	Modbus  []struct {
		Name, Connect string
		Interval      telemetry.Duration
		Units         []struct {
			ID              int
			Device, Profile string
		}
	}
	AIS     []struct{ Name, Connect string } `yaml:"ais"`
	Devices string
	Zones   string
	Rules   []string
	IOC     []struct {
		Name    string
		Webhook struct{ URL, Secret string }
	} `yaml:"ioc"`
}

func TestGatewayFileNamesTheDefaultAddresses(t *testing.T) {
	var g gatewayFile
	decodeStrict(t, "gateway.yaml", embedded(t, "gateway.yaml"), &g)
	a := DefaultAddresses()
	for _, c := range []struct{ what, got, want string }{
		{"broker", g.Broker.Listen, a.MQTT},
		{"influx", g.Influx.Listen, a.Influx},
		{"console", g.Console.Listen, a.Console},
		{"modbus", g.Modbus[0].Connect, "tcp://" + a.Modbus},
		{"ais", g.AIS[0].Connect, "listen://" + a.NMEA},
		{"ioc", g.IOC[0].Webhook.URL, "http://" + a.IOC + "/warnings"},
		{"secret", g.IOC[0].Webhook.Secret, DefaultSecret},
	} {
		if c.got != c.want {
			t.Errorf("%s: gateway.yaml says %q, DefaultAddresses %q", c.what, c.got, c.want)
		}
	}
	if g.Modbus[0].Units[0].ID != weatherUnit {
		t.Errorf("gateway.yaml polls unit %d, the station is unit %d", g.Modbus[0].Units[0].ID, weatherUnit)
	}
	for _, pattern := range append(g.Rules, g.Devices, g.Zones) {
		if found, err := fs.Glob(Files, pattern); err != nil || len(found) == 0 {
			t.Errorf("gateway.yaml names %q, which is not in Files (%v)", pattern, err)
		}
	}
}

func builtinCatalogue(t *testing.T) *telemetry.Catalogue {
	t.Helper()
	text, err := os.ReadFile("../builtin/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Kinds []telemetry.Kind }
	decodeStrict(t, "kinds.yaml", text, &file)
	catalogue, faults := telemetry.NewCatalogue(file.Kinds)
	for _, f := range faults {
		t.Error(f)
	}
	return catalogue
}

func TestDevices(t *testing.T) {
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	registry, faults := telemetry.NewRegistry(list, builtinCatalogue(t))
	for _, f := range faults {
		t.Error(f)
	}
	if n := len(vessels(list)); n != 30 {
		t.Errorf("%d boats, want 30", n)
	}
	for _, d := range vessels(list) {
		if d.Name == "" || d.Owner == "" || d.Interval <= 0 {
			t.Errorf("%s lacks a name, an owner or an interval", d.ID)
		}
		// Plate and port go out over AIS, which has capital ASCII letters only.
		if port, _ := d.Facts["port"].(string); ascii(port) == "" {
			t.Errorf("%s: port %q has no form for AIS", d.ID, port)
		}
	}
	for _, id := range []string{kimLong, phuOc, namDong, aLuoi, "demo-weather", silentBoat, leaverBoat, "kim-long", "phu-oc"} {
		if registry.Device(id) == nil {
			t.Errorf("device %s of the story is not registered", id)
		}
	}
	for _, id := range []string{kimLong, phuOc, "kim-long", "phu-oc"} {
		for _, fact := range []string{"alarm1_m", "alarm2_m", "alarm3_m"} {
			if level, ok := registry.Device(id).Fact(fact); !ok || level.(float64) <= 0 {
				t.Errorf("%s has no %s", id, fact)
			}
		}
	}
}

// TestStationsReportWhatTheCatalogueKnows guards the names and ranges of what
// the stations publish.
func TestStationsReportWhatTheCatalogueKnows(t *testing.T) {
	catalogue := builtinCatalogue(t)
	list, err := registry()
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range stations("", storm{seed: 1, speed: 1}, time.Time{}, nil) {
		d := list[st.id]
		if len(d.Kinds) != 1 || st.topic != "telemetry/"+st.id+"/"+d.Kinds[0] {
			t.Errorf("%s publishes to %s and is registered with %v", st.id, st.topic, d.Kinds)
			continue
		}
		kind := catalogue.Kind(d.Kinds[0])
		for since := time.Duration(0); since < 200*time.Second; since += stationEvery {
			for name, value := range st.measure(since) {
				q := kind.Quantity(name)
				if q == nil {
					t.Fatalf("%s publishes %s, which kind %s does not have", st.id, name, kind.Name)
				}
				if !q.InRange(value.(float64)) {
					t.Fatalf("%s: %s = %v at %s is out of range", st.id, name, value, since)
				}
			}
		}
	}
}

func fishingGround(t *testing.T) orb.Polygon {
	t.Helper()
	text := embedded(t, "zones.geojson")
	if !json.Valid(text) {
		t.Fatal("zones.geojson is not JSON")
	}
	zones, err := geojson.UnmarshalFeatureCollection(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range zones.Features {
		if f.Properties.MustString("name") == "fishing-ground" {
			polygon := f.Geometry.(orb.Polygon)
			if ring := polygon[0]; !ring.Closed() {
				t.Fatal("the ring of fishing-ground is not closed")
			}
			return polygon
		}
	}
	t.Fatal("zones.geojson has no zone fishing-ground")
	return nil
}

// TestOneBoatLeavesItsZone follows the fleet for six cycles with several seeds.
func TestOneBoatLeavesItsZone(t *testing.T) {
	zone := fishingGround(t)
	list, err := devices()
	if err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(5) {
		fleet, err := newFleet(list, storm{seed: seed, speed: 1})
		if err != nil {
			t.Fatal(err)
		}
		for i := range fleet {
			b := &fleet[i]
			outside := 0
			for s := range 6 * int(cycleS) {
				f := b.at(float64(s), 1)
				if f.speedKn < 1 || f.speedKn > 9 || f.courseDeg < 0 || f.courseDeg >= 360 {
					t.Fatalf("seed %d, %s at %d s: %.1f kn on %.1f degrees is no fishing boat", seed, b.device.ID, s, f.speedKn, f.courseDeg)
				}
				if !planar.PolygonContains(zone, orb.Point{f.lon, f.lat}) {
					outside++
				}
			}
			switch perCycle := outside / 6; {
			case b.device.ID == leaverBoat && (perCycle < 15 || perCycle > 60):
				t.Errorf("seed %d: %s is outside for %d s of a cycle, want 15 to 60", seed, b.device.ID, perCycle)
			case b.device.ID != leaverBoat && outside > 0:
				t.Errorf("seed %d: %s is outside for %d s", seed, b.device.ID, outside)
			}
		}
		if f := fleet[11].at(0, 1); fleet[11].device.ID != leaverBoat || !planar.PolygonContains(zone, orb.Point{f.lon, f.lat}) {
			t.Errorf("seed %d: %s does not begin inside", seed, fleet[11].device.ID)
		}
	}
}
