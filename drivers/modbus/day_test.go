package modbus

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// A diary is an intake that keeps how many readings each device has and how
// they lie in time.
type diary struct {
	start    time.Time
	interval time.Duration
	count    map[string]int
	latest   map[string]time.Duration // after the interval's begin
	links    map[string]string
}

func (d *diary) Accept(_ string, readings []telemetry.Reading, _ func(error)) {
	for i := range readings {
		r := &readings[i]
		if r.Kind == telemetry.KindLink {
			up, _ := r.Number("up")
			d.links[r.Device] += fmt.Sprint(up)
			continue
		}
		d.count[r.Device]++
		d.latest[r.Device] = max(d.latest[r.Device], time.Since(d.start)%d.interval)
	}
}

func (d *diary) SetAside(telemetry.DeadLetter, func(error)) { panic("nothing is set aside by modbus") }

// A day of eight units on one line of 9600 baud, one of them dead and one answer
// in two hundred lost: every other unit has a reading in every interval, soon
// after its begin, and the dead one costs little.
func TestDayOnOneLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const interval, timeout, dead = 10 * time.Second, 500 * time.Millisecond, 5
		cfg := Config{Name: "line", Connect: "serial:///dev/ttyUSB0?baud=9600", Interval: telemetry.Duration(interval), Timeout: telemetry.Duration(timeout)}
		for id := 1; id <= 8; id++ {
			cfg.Units = append(cfg.Units, Unit{ID: id, Device: fmt.Sprint("unit-", id), Profile: "weather-485", Omit: []string{"air.pm25_ugm3", "air.pm10_ugm3"}})
		}
		book := &diary{start: time.Now(), interval: interval, count: map[string]int{}, latest: map[string]time.Duration{}, links: map[string]string{}}
		line, reg := newLine(t, cfg, profilesOf(t), book)
		random := rand.New(rand.NewPCG(7, 7))
		asked := 0
		w := &wire{random: random, think: 30 * time.Millisecond, char: line.buses[0].medium.(*rtu).char,
			dead: func(unit byte) bool {
				if unit == dead {
					asked++
				}
				return unit == dead
			},
			fault: func() fault {
				if random.IntN(200) == 0 {
					return silence
				}
				return right
			}}
		w.on(line.buses[0])
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		if err := line.Run(ctx); err != nil {
			t.Error(err)
		}
		const slots = int(24 * time.Hour / interval)
		for id := 1; id <= 8; id++ {
			name := fmt.Sprint("unit-", id)
			if id == dead {
				if book.count[name] != 0 || book.links[name] != "0" || asked > slots/9 {
					t.Errorf("the dead unit: %d readings, links %s, asked %d times in %d intervals", book.count[name], book.links[name], asked, slots)
				}
				continue
			}
			// An answer is lost twice in a row now and then: once in 40000.
			if book.count[name] < slots-4 || book.latest[name] > 3*time.Second || len(book.links[name]) > 7 {
				t.Errorf("%s: %d readings in %d intervals, the latest %s after its begin, links %s", name, book.count[name], slots, book.latest[name], book.links[name])
			}
		}
		if missed := count(t, reg, "haidang_modbus_missed_polls_total", ""); missed > 0 {
			t.Errorf("%v polls were missed", missed)
		}
		if n := count(t, reg, "haidang_modbus_connections_total", ""); n != 1 {
			t.Errorf("%v connections: a dead unit is no reason to open the port again", n)
		}
		t.Logf("%v requests, dead unit asked %d times, latest reading %s after the begin of its interval",
			count(t, reg, "haidang_modbus_requests_total", ""), asked, book.latest["unit-8"])
	})
}

// A dead unit behind a serial server costs one connection when it dies, and
// none while others answer.
func TestDeadUnitKeepsConnection(t *testing.T) {
	for _, connect := range []string{"tcp://h", "rtu+tcp://h:1"} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			died := func(unit byte) bool { return unit == 2 && time.Since(start) > 55*time.Second }
			cfg := Config{Name: "line", Connect: connect, Timeout: seconds(1), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level"}}}
			shelf := newShelf()
			line, reg := newLine(t, cfg, profilesOf(t, level), shelf)
			s := &server{}
			switch m := line.buses[0].medium.(type) {
			case *rtu:
				(&wire{dead: died}).on(line.buses[0])
			case *tcp:
				var unit byte
				s.refuse = func(u, _ byte, _, _ int) byte { unit = u; return 0 }
				s.fault = func() fault {
					if died(unit) {
						return silence
					}
					return right
				}
				m.dial = s.pipe
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
			defer cancel()
			if err := line.Run(ctx); err != nil {
				t.Error(err)
			}
			s.hangUp()
			synctest.Wait()
			if n := count(t, reg, "haidang_modbus_connections_total", ""); n > 3 {
				t.Errorf("%s: %v connections in 30 minutes with a dead unit", connect, n)
			}
			if n := len(shelf.of("a", "river")); n != 180 || shelf.links("a")+shelf.links("b") != "110" {
				t.Errorf("%s: %d readings of the other unit, links %s and %s", connect, n, shelf.links("a"), shelf.links("b"))
			}
		})
	}
}
