package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

const pump = `
name: pump
registers:
  - {value: pump.speed_rpm, address: 10, type: int32, order: CDAB}
  - {value: pump.running, address: 3, table: coil}
  - {value: pump.door_closed, address: 4, table: discrete, scale: -1, offset: 1}   # a contact that opens with the door
writes:
  - {name: setpoint_c, address: 20, type: int16, scale: 0.1, offset: -5, min: -10, max: 50}
  - {name: limit, address: 22, type: float32, order: CDAB, min: 0, max: 100}
  - {name: mode, address: 24, min: 0, max: 9, multiple: true}
  - {name: relay, address: 3, table: coil}
  - {name: relays, address: 5, table: coil, multiple: true}
  - {name: reset, address: 30, min: 1, max: 1, write_only: true}
  - {name: never, address: 40, min: 0, max: 1}
`

func pumpLine(t *testing.T, connect string) (*Line, *bytes.Buffer, func(result string) float64) {
	cfg := Config{Name: "line", Connect: connect, Timeout: seconds(1),
		Units: []Unit{{ID: 9, Device: "pump-1", Profile: "pump", Writes: []string{"setpoint_c", "limit", "mode", "relay", "relays", "reset"}}, {ID: 10, Device: "pump-2", Profile: "pump"}}}
	line, reg := newLine(t, cfg, profilesOf(t, pump), newShelf())
	log := &bytes.Buffer{}
	line.logger = slog.New(slog.NewTextHandler(log, nil))
	return line, log, func(result string) float64 { return count(t, reg, "haidang_modbus_writes_total", result) }
}

// Writes over Modbus TCP and RTU: functions 5, 6, 15 and 16, read back.
func TestWrite(t *testing.T) {
	for _, connect := range []string{"tcp://h", "rtu+tcp://h:1"} {
		t.Run(connect[:3], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line, log, results := pumpLine(t, connect)
				s := &server{}
				if m, ok := line.buses[0].medium.(*tcp); ok {
					m.dial = s.pipe
				} else {
					w := &wire{}
					w.on(line.buses[0])
					s = &w.server
				}
				for _, c := range []struct {
					unit, name string
					number     float64
					function   byte
					want       string // the bytes, or the error
				}{
					{"9", "setpoint_c", 23.4, 6, "011c"},
					{"pump-1", "setpoint_c", -10, 6, "ffce"},
					{"line/9", "limit", 12.5, 16, "00004148"},
					{"9", "mode", 7, 16, "0007"},
					{"9", "relay", 1, 5, "01"},
					{"9", "relay", 0, 5, "00"},
					{"9", "relays", 1, 15, "01"},
					{"9", "reset", 1, 6, "0001"},
					{"9", "never", 1, 0, "write never of unit 9: not allowed by the configuration; writes of that unit are: setpoint_c, limit"},
					{"10", "relay", 1, 0, "writes of that unit are: none"},
					{"77", "relay", 1, 0, "writes of that unit are: none"},
					{"pump-3", "relay", 1, 0, `no such unit: line "line" has no unit "pump-3"; expected the id or the device of one, as in 9 (pump-1), 10 (pump-2)`},
					{"9", "setpoint_c", 50.1, 0, "setpoint_c 50.1 is not in -10..50"},
					{"9", "setpoint_c", 23.44, 0, "setpoint_c 23.44 is no whole number of steps of 0.1"},
					{"9", "relay", 0.5, 0, "expected 0 or 1"},
				} {
					before := len(s.requests())
					done, err := line.Write(context.Background(), c.unit, c.name, c.number, "hoa")
					if err != nil {
						if c.function != 0 || !strings.Contains(err.Error(), c.want) {
							t.Errorf("%s of %s = %v: error %v, want %s", c.name, c.unit, c.number, err, c.want)
						}
						continue
					}
					asked := s.requests()[before:]
					functions := ""
					for _, r := range asked {
						functions += fmt.Sprint(r.function, " ")
					}
					want := fmt.Sprint(asked[0].function, " ", c.function, " ", asked[0].function, " ")
					if c.name == "reset" {
						want = "6 "
					}
					if fmt.Sprintf("%x", done.Bytes) != c.want || functions != want || done.ReadBack != (c.name != "reset") {
						t.Errorf("%s of %s = %v: %+v by functions %s, want %s by %s", c.name, c.unit, c.number, done, functions, c.want, want)
					}
				}
				if done, refused := results(writeDone), results(writeRefused); done != 8 || refused != 7 {
					t.Errorf("%v done and %v refused are counted, want 8 and 7", done, refused)
				}
				if n := strings.Count(log.String(), "\n"); n != 15 || !strings.Contains(log.String(), `msg="written by hand" unit=9 name=setpoint_c number=23.4 by=hoa result=done`) {
					t.Errorf("%d lines are logged, want one for each write:\n%s", n, log.String())
				}
				line.Close()
				s.hangUp()
				synctest.Wait()
			})
		})
	}
}

// What goes wrong with a write is told for what it is, and no write is sent
// twice.
func TestWriteFaults(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults []fault // of: the read before, the write, the read back, ...
		drop   bool    // the unit confirms and does nothing
		result string
		want   string
	}{
		{"confirmation lost", []fault{right, silence}, false, writeDone, ""},
		{"no answer before", []fault{silence}, false, writeFailed, "nothing was written, because it could not be read before: no answer within 1s"},
		{"not read back", []fault{right, right, silence, silence}, false, writeFailed, "it was confirmed, but could not be read back"},
		{"nothing after", []fault{right, silence, silence, silence}, false, writeFailed, "it is not known whether it was written"},
		{"something else read back", []fault{right, right}, true, writeMismatch, "00 07 was sent and 00 00 is read back (the unit confirmed the write)"},
		{"connection lost", []fault{right, closed}, false, writeDone, ""},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				line, _, results := pumpLine(t, "rtu+tcp://h:1")
				writes := 0
				w := &wire{fault: inTurn(c.faults...), trace: func(request []byte, _ fault) {
					if !reads(request[1]) {
						writes++
					}
				}}
				if c.drop {
					w.server.register = func(byte, byte, int) (uint16, byte) { return 0, 0 }
					w.trace = func(request []byte, _ fault) { clear(w.server.written) }
				}
				w.on(line.buses[0])
				_, err := line.Write(context.Background(), "9", "mode", 7, "")
				if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) || results(c.result) != 1 {
					t.Errorf("error %v, want %q, counted as %s: %v", err, c.want, c.result, results(c.result))
				}
				if writes > 1 {
					t.Errorf("written %d times", writes)
				}
				line.Close()
			})
		})
	}
}

// Reading by hand goes between the polls of a line that runs, and opens a line
// that does not.
func TestReadByHand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line, _, _ := pumpLine(t, "rtu+tcp://h:1")
		w := &wire{think: 100 * time.Millisecond}
		w.server.register = func(unit, function byte, address int) (uint16, byte) { return uint16(address) & 1, 0 }
		w.on(line.buses[0])
		read := func() {
			readings, err := line.Read(context.Background(), "pump-1")
			if err != nil || len(readings) != 1 {
				t.Fatalf("%v, %v", readings, err)
			}
			for name, want := range map[string]float64{"speed_rpm": 1 << 16, "running": 1, "door_closed": 1} {
				if got, ok := readings[0].Number(name); !ok || got != want {
					t.Errorf("%s is %v, want %v", name, got, want)
				}
			}
			answer, err := line.Registers(context.Background(), Query{Unit: "33", Table: Input, First: 1, Count: 2})
			if err != nil || !bytes.Equal(answer, []byte{0, 1, 0, 0}) {
				t.Errorf("registers % x, %v", answer, err)
			}
		}
		read()
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan error)
		go func() { over <- line.Run(ctx) }()
		synctest.Wait()
		read() // a poll is under way
		<-time.After(time.Minute)
		read()
		if n := len(line.intake.(*shelf).of("pump-2", "pump")); n != 7 {
			t.Errorf("%d readings of the other unit in a minute, want 7", n)
		}
		cancel()
		if err := <-over; err != nil {
			t.Error(err)
		}
		for _, q := range []Query{{Unit: "9", Table: "x", Count: 1}, {Unit: "9", Table: Holding, Count: 126}, {Unit: "9", Table: Coil, Count: 2001}, {Unit: "9", Table: Coil, First: 65535, Count: 2}, {Unit: "300", Table: Coil, Count: 1}} {
			if _, err := line.Registers(ctx, q); err == nil {
				t.Errorf("%+v is accepted", q)
			}
		}
		if _, err := line.Read(ctx, "33"); !errors.Is(err, errNoUnit) {
			t.Errorf("the values of a unit without profile: %v", err)
		}
	})
}

// The status register decides the quality of the values that it judges.
func TestStatus(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		probe := `
name: probe
registers: [{value: water.ph, address: 0}, {value: water.do_mgl, address: 1}, {value: river.level_m, address: 2}]
status:
  - {name: ph, address: 3, map: {0: good, 1: suspect, 2: maintenance}, default: calibrating, values: [water.ph]}
  - {name: all, address: 9, type: int16, map: {0: good, -1: bad}}
`
		var code atomic.Int64
		s := &server{register: func(_, _ byte, address int) (uint16, byte) {
			if address == 9 && code.Load() == 100 {
				return 0, 2
			}
			return map[int]uint16{3: uint16(code.Load())}[address], 0
		}}
		shelf := newShelf()
		cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "probe"}, {ID: 2, Device: "b", Profile: "probe", Omit: []string{"status.all", "status.ph"}}}}
		line, _ := newLine(t, cfg, profilesOf(t, probe), shelf)
		b := line.buses[0]
		b.medium.(*tcp).dial = s.pipe
		for _, c := range []struct {
			code int64
			want string // ph, do, level, reading water, reading river
		}{{0, "good good good good good"}, {1, "suspect good good suspect good"}, {2, "maintenance good good maintenance good"}, {7, "calibrating good good calibrating good"},
			{100, "calibrating suspect suspect calibrating suspect"}} {
			code.Store(c.code)
			if err := b.poll(t.Context(), b.units[0]); err != nil {
				t.Fatal(err)
			}
			water, river := shelf.of("a", "water"), shelf.of("a", "river")
			w, r := water[len(water)-1], river[len(river)-1]
			if got := fmt.Sprint(w.Values[0].Quality, " ", w.Values[1].Quality, " ", r.Values[0].Quality, " ", w.Quality, " ", r.Quality); got != c.want {
				t.Errorf("status %d: %s, want %s", c.code, got, c.want)
			}
		}
		if err := b.poll(t.Context(), b.units[1]); err != nil || shelf.of("b", "water")[0].Quality != telemetry.Good {
			t.Errorf("without statuses: %v, %v", shelf.of("b", "water"), err)
		}
		line.Close()
		s.hangUp()
		synctest.Wait()
	})
}

// An adapter that echoes is used with echo, and told without.
func TestEcho(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, echo := range []bool{true, false} {
			cfg := Config{Name: "line", Connect: "rtu+tcp://h:1", Timeout: seconds(1), Echo: echo, Units: []Unit{{ID: 9, Device: "a", Profile: "pump", Writes: []string{"mode", "relay"}}}}
			line, _ := newLine(t, cfg, profilesOf(t, pump), newShelf())
			w := &wire{echoes: true, think: 20 * time.Millisecond}
			w.on(line.buses[0])
			check := func(what string, err error) {
				t.Helper()
				if echo && err != nil || !echo && (err == nil || !strings.Contains(err.Error(), "echo: true")) {
					t.Errorf("echo %v, %s: error %v", echo, what, err)
				}
			}
			// An echo looks like the confirmation of a write; reading back decides.
			if _, err := line.Write(context.Background(), "9", "relay", 1, ""); err != nil {
				t.Errorf("echo %v, write: %v", echo, err)
			}
			// The answer to this read is as long as its echo, and looks like one.
			wrong, err := askRegisters(line, 1, Coil, 0x0300, 24)
			if check("coils", err); wrong != "" {
				t.Error(wrong)
			}
			w.dead = func(byte) bool { return true }
			if _, err = askRegisters(line, 1, Holding, 10, 2); err == nil || echo && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("echo %v, a dead unit: %v", echo, err)
			}
			line.Close()
		}
	})
}
