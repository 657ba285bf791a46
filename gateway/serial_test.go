//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"haidang/drivers/link/ptytest"

	"golang.org/x/sys/unix"
)

// A transmitter is a simulated Vaisala WXT on a pseudo-terminal: it answers
// 0R0! while it is plugged in.
type transmitter struct {
	name   string // the device, as /dev/serial/by-id has it
	master *os.File
	ended  chan struct{}
}

func (w *transmitter) plug(t *testing.T) {
	t.Helper()
	master, device := ptytest.Open(t)
	w.master = master
	if err := os.Symlink(device, w.name); err != nil {
		t.Fatal(err)
	}
	w.ended = make(chan struct{})
	go w.answer(w.ended)
}

func (w *transmitter) answer(ended chan<- struct{}) {
	defer close(ended)
	buf := make([]byte, 64)
	for {
		n, err := w.master.Read(buf)
		switch {
		case errors.Is(err, unix.EIO): // nobody has it open
			<-time.After(10 * time.Millisecond)
		case err != nil:
			return
		case strings.Contains(string(buf[:n]), "0R0!"):
			if _, err := io.WriteString(w.master, "0R0,Dm=106D,Sm=4.0M,Ta=28.5C,Ua=91.0P,Pa=1001.1H,Sx=6.6#\r\n"); err != nil {
				return
			}
		}
	}
}

func (w *transmitter) unplug() {
	os.Remove(w.name)
	w.master.Close()
	<-w.ended
}

// link returns whether the API has the device's link up; ok is false while it
// knows nothing of it.
func (g *gatewayProcess) link(device string) (up, ok bool) {
	g.t.Helper()
	rows := g.rows(fmt.Sprintf(`SELECT last(up) FROM link WHERE device = '%s'`, device))
	if len(rows) == 0 {
		return false, false
	}
	n, isNumber := rows[0][1].(json.Number)
	if !isNumber {
		return false, false
	}
	return n.String() == "1", true
}

// TestSerialInstrument: readings of a polled instrument reach InfluxDB and the
// API; when its adapter is unplugged the links go down, and come up again within
// about a second after it is plugged in.
func TestSerialInstrument(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a process")
	}
	wxt := &transmitter{name: filepath.Join(t.TempDir(), "usb-wxt")}
	wxt.plug(t)
	g := prepare(t, fmt.Sprintf(`
serial:
  - {name: mast, connect: "serial://%s?baud=19200", device: tt-hue, format: vaisala-wxt, poll: "0R0!\r\n", interval: 200ms}
`, wxt.name))
	g.start()
	is := func(want bool) func() bool {
		return func() bool {
			line, known := g.link("mast")
			device, too := g.link("tt-hue")
			return known && too && line == want && device == want
		}
	}
	eventually(t, "links up", 10*time.Second, is(true))
	eventually(t, "the reading in InfluxDB", 10*time.Second, func() bool {
		rows := g.rows(`SELECT temperature_c, humidity_pct, pressure_hpa, wind_speed_ms, wind_direction_deg FROM weather WHERE device = 'tt-hue' LIMIT 1`)
		return len(rows) == 1 && fmt.Sprint(rows[0][1:]) == "[28.5 91 1001.1 4 106]"
	})
	if status, body := g.try("/api/v1/devices"); status != http.StatusOK || !strings.Contains(body, `"tt-hue"`) {
		t.Errorf("devices: %d %s", status, body)
	}
	if n := g.metric("haidang_serial_lost_fields_total", `source="serial.mast"`, `reason="invalid"`); n < 1 {
		t.Errorf("the invalid gust is counted %v times", n)
	}

	wxt.unplug()
	gone := time.Now()
	eventually(t, "links down", 10*time.Second, is(false))
	t.Logf("unplugging was in InfluxDB after %v", time.Since(gone))
	<-time.After(3 * time.Second) // pauses between tries are longer by now
	wxt.plug(t)
	back := time.Now()
	eventually(t, "links up again", 10*time.Second, is(true))
	took := time.Since(back)
	t.Logf("its return was in InfluxDB after %v", took)
	if took > 3*time.Second { // a quarter of a second to see it, the rest is a busy machine
		t.Errorf("it ran again after %v", took)
	}
	eventually(t, "told that it runs again", 5*time.Second, func() bool {
		return strings.Contains(g.output.String(), "source runs again")
	})
	wxt.unplug()
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
	if log := g.output.String(); !strings.Contains(log, "the device hung up: is it unplugged?") {
		t.Errorf("log:\n%s", log)
	}
}

// TestSerialFaults: check tells what is wrong in serial entries.
func TestSerialFaults(t *testing.T) {
	g := prepare(t, `
serial:
  - {name: mast, connect: "serial:///dev/ttyS1?baud=10", device: tt-hue, format: vaisala-wxt}
  - {name: buoy, connect: "serial:///dev/ttyS2", device: b, format: nmea, match: x}
  - {name: sonic, connect: "serial:///dev/ttyS2?baud=9600", device: s, format: pattern, match: "(?P<a>x)", values: [{from: b, to: river.level_m}]}
modbus: [{name: buoy, connect: "serial:///dev/ttyS2", units: [{id: 1, device: m, profile: weather-485}]}]
`)
	_, _, err := readConfiguration(filepath.Join(g.dir, "gateway.yaml"), nil)
	if err == nil {
		t.Fatal("no fault was found")
	}
	for _, want := range []string{
		`serial[0].connect: connect "serial:///dev/ttyS1?baud=10": baud "10" is not in 50..12000000`,
		`serial[1].match: format "nmea" has no match`,
		`serial[1].connect: device /dev/ttyS2 is that of modbus[0].connect already`,
		`serial[2].values[0].from: match has no group (?P<b>...)`,
		`serial[1].name: name "buoy" is that of modbus[0] already`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("want %s in\n%v", want, err)
		}
	}
}
