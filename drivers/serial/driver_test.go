package serial

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

const wxtLine = "0R0,Dm=106D,Sm=4.0M,Sx=6.6M,Ta=16.0C,Ua=50.0P,Pa=1018.1H\r\n"

const wxtReading = "tt-hue weather humidity_pct=50 pressure_hpa=1018.1 temperature_c=16 wind_direction_deg=106 wind_gust_ms=6.6 wind_speed_ms=4"

func wxtConfig() Config {
	return Config{Name: "wxt", Connect: "serial:///dev/ttyS1", Device: "tt-hue", Format: VaisalaWXT}
}

// write says something; the pipe may be closed.
func write(far net.Conn, s string) { _, _ = io.WriteString(far, s) }

// TestPolled: polls keep to their grid, an answer is read, one that does not
// come is counted, and after three of them the instrument's link is down.
func TestPolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := wxtConfig()
		c.Poll, c.Interval = "0R0!\r\n", telemetry.Duration(10*time.Second)
		var polls []time.Duration
		began := time.Now()
		d, s := bench(t, c, 115*time.Second, func(far net.Conn) {
			buf := make([]byte, 64)
			for {
				n, err := far.Read(buf)
				if err != nil {
					return
				}
				if string(buf[:n]) != c.Poll {
					t.Errorf("polled with %q", buf[:n])
				}
				polls = append(polls, time.Since(began))
				switch n := len(polls); {
				case n == 2:
					write(far, "0R0,Dm=10") // cut, and nothing follows
				case n > 3 && n < 8:
				default:
					time.Sleep(100 * time.Millisecond)
					write(far, wxtLine[:20])
					time.Sleep(100 * time.Millisecond)
					write(far, wxtLine[20:])
				}
			}
		})
		for i, at := range polls {
			if at != time.Duration(i)*10*time.Second {
				t.Errorf("poll %d after %v", i, at)
			}
		}
		want := "wxt link up=1\ntt-hue link up=1\n" + wxtReading + "\n" + wxtReading +
			"\ntt-hue link cause=\"no right line for 32s\" up=0\ntt-hue link up=1" + strings.Repeat("\n"+wxtReading, 5)
		if got := s.lines(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if n := testutil.ToFloat64(d.metrics.failures[failTimeout]); n != 5 {
			t.Errorf("%v answers missed, want 5", n)
		}
		if n := testutil.ToFloat64(d.metrics.lines[malformed]); n != 1 {
			t.Errorf("%v lines cut, want 1", n)
		}
		if n := testutil.ToFloat64(d.metrics.requests); n != 12 {
			t.Errorf("%v polls, want 12", n)
		}
	})
}

// TestGathered: lines of a free-running instrument become one reading an
// interval, with the newest values; what is left is delivered when it is over.
func TestGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := wxtConfig()
		c.Interval = telemetry.Duration(10 * time.Second)
		began := time.Now()
		_, s := bench(t, c, 100*time.Second, func(far net.Conn) {
			for i := range 12 { // 0, 2, .. 22 s
				write(far, fmt.Sprintf("0R1,Sm=%d.0M\r\n", i))
				if i == 3 {
					write(far, "0R2,Ta=16.0C\r\ngarbage\r\n")
				}
				time.Sleep(2 * time.Second)
			}
			_, _ = far.Read(make([]byte, 1))
		})
		want := `wxt link up=1
tt-hue link up=1
tt-hue weather temperature_c=16 wind_speed_ms=4
tt-hue weather wind_speed_ms=9
tt-hue weather wind_speed_ms=11
tt-hue link cause="no right line for 1m0s" up=0`
		got := s.lines()
		// What comes at the very moment when an interval is over belongs to
		// either of them.
		got = strings.NewReplacer("wind_speed_ms=5", "wind_speed_ms=4", "wind_speed_ms=10", "wind_speed_ms=9").Replace(got)
		if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		if took := time.Since(began); took != 100*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// TestRefused: garbage, wrong checksums and lines without end are counted, one
// of each a minute is set aside, and nothing else is lost by them.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Config{Name: "buoy", Connect: "serial:///dev/ttyS1", Device: "b", Format: NMEA}
		d, s := bench(t, c, 2*time.Minute, func(far net.Conn) {
			for range 3 {
				write(far, "$SDMTW,12.6,C*01\r\n$SDMTW,12.7,C*01\r\n\x00\xff\x00\r\n")
				write(far, strings.Repeat("~", 3*link.DefaultMaxLine)+"\r\n$SDMTW,12.6,C*01\r\n")
				time.Sleep(25 * time.Second)
			}
			_, _ = far.Read(make([]byte, 1))
		})
		want := "buoy link up=1\nb link up=1" + strings.Repeat("\nb sea sea_temperature_c=12.6", 6) + "\nb link cause=\"no right line for 1m0s\" up=0"
		if got := s.lines(); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
		for v, n := range map[verdict]float64{used: 6, badChecksum: 3, malformed: 3, tooLong: 3} {
			if got := testutil.ToFloat64(d.metrics.lines[v]); got != n {
				t.Errorf("%s: %v lines, want %v", verdictNames[v], got, n)
			}
		}
		var reasons []string
		for _, l := range s.letters {
			reasons = append(reasons, l.Reason)
			if l.Source != "serial.buoy" || l.Place != "serial:///dev/ttyS1?baud=9600" || l.Detail == "" || len(l.Bytes) == 0 || l.Device != "b" {
				t.Errorf("letter %+v", l)
			}
		}
		if got := strings.Join(reasons, " "); got != "bad_checksum malformed too_long" {
			t.Errorf("set aside: %s", got)
		}
	})
}

// TestLineLost: the end of the line takes the links of all behind it down, once,
// and the next run brings them up again.
func TestLineLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newShelf()
		d, err := New(wxtConfig(), s, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("open serial:///dev/ttyS1: no such file or directory")
		for range 2 {
			near, far := net.Pipe()
			d.dial = func(context.Context, link.Target, link.Options) (link.Stream, error) { return near, nil }
			go func() { write(far, wxtLine+"0R1,Sm=5"); synctest.Wait(); far.Close() }()
			if err := d.Run(t.Context()); err == nil || err.Error() != `serial "wxt": read from serial:///dev/ttyS1?baud=9600: the other side closed the connection` {
				t.Errorf("Run: %v", err)
			}
			d.dial = func(context.Context, link.Target, link.Options) (link.Stream, error) { return nil, gone }
			for range 3 {
				if err := d.Run(t.Context()); !errors.Is(err, gone) {
					t.Errorf("Run: %v", err)
				}
			}
		}
		once := "wxt link up=1\ntt-hue link up=1\n" + wxtReading + `
wxt link cause="read from serial:///dev/ttyS1?baud=9600: the other side closed the connection" up=0
tt-hue link cause="read from serial:///dev/ttyS1?baud=9600: the other side closed the connection" up=0`
		if got := s.lines(); got != once+"\n"+once {
			t.Errorf("got\n%s\nwant twice\n%s", got, once)
		}
	})
}

// TestTerminator reads lines that end with CR alone.
func TestTerminator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := configs()["maxbotix"]
		_, s := bench(t, c, time.Second, func(far net.Conn) {
			time.Sleep(openQuiet + time.Millisecond)
			write(far, "R12")
			write(far, "34\rR0500\r\rR9999\r")
			_, _ = far.Read(make([]byte, 1))
		})
		if got := s.lines(); got != "line link up=1\nd link up=1\nd river level_m=6.186\nd river level_m=6.92" {
			t.Errorf("got\n%s", got)
		}
	})
}

// TestPartsOfLines: lines of numbers without a checksum. What was being sent when
// the line was opened, and what is cut off when it breaks, would be other numbers.
func TestPartsOfLines(t *testing.T) {
	for _, c := range []struct {
		name, says string
		quiet      bool // before it says something
		want       string
	}{
		{"opened within a line", "2,3.5\n13.62,9.5\n13.63,9.5\n", false, "\nd river level_m=13.62\nd river level_m=13.63"},
		{"opened between CR and LF", "\n13.62,9.5\n", false, "\nd river level_m=13.62"},
		{"opened between lines", "13.61,9.5\n13.62,9.5\n", true, "\nd river level_m=13.61\nd river level_m=13.62"},
		{"broken within a line", "13.61,9.5\n1", true, "\nd river level_m=13.61"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newShelf()
				d, err := New(Config{Name: "line", Connect: "serial:///dev/ttyS1", Device: "d", Format: Pattern, Separator: ",",
					Values: []Value{{From: "1", To: "river.level_m"}}}, s, nil, nil)
				if err != nil {
					t.Fatal(err)
				}
				near, far := net.Pipe()
				d.dial = func(context.Context, link.Target, link.Options) (link.Stream, error) { return near, nil }
				go func() {
					if c.quiet {
						time.Sleep(openQuiet + time.Millisecond)
					}
					write(far, c.says)
					synctest.Wait()
					far.Close()
				}()
				if err := d.Run(t.Context()); err == nil {
					t.Error("the line did not break")
				}
				got, _, _ := strings.Cut(strings.TrimPrefix(s.lines(), "line link up=1\nd link up=1"), "\nline link cause")
				if got != c.want {
					t.Errorf("got %q, want %q", got, c.want)
				}
			})
		})
	}
}

// TestFaults: testdata is a table here, for every fault is one key.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) {}, ""},
		{func(c *Config) { c.Name = "" }, `name: line name ""`},
		{func(c *Config) { c.Connect = "udp://:1" }, "connect: connect \"udp://:1\": want serial:///dev/name or tcp://host:port"},
		{func(c *Config) { c.Connect = "serial:///dev/x?baud=1" }, `connect: connect "serial:///dev/x?baud=1": baud "1" is not in 50..12000000`},
		{func(c *Config) { c.Device = "wxt" }, "device: device \"wxt\" has the name of its line"},
		{func(c *Config) { c.Device = "a b" }, `device: device "a b" is not a name`},
		{func(c *Config) { c.Format = "nmea2000" }, `format: format "nmea2000" is not one of nmea, vaisala-wxt, sdi-12, pattern`},
		{func(c *Config) { c.Poll = `0R0!\r\n` }, "poll: poll"},
		{func(c *Config) { c.Interval = 1 }, "interval: interval 1ns is not in 100ms..1d"},
		{func(c *Config) { c.Timeout = telemetry.Duration(time.Hour) }, "timeout: timeout 1h is not in 10ms..1m"},
		{func(c *Config) { c.Silence = telemetry.Duration(time.Millisecond) }, "silence: silence 1ms is not in 1s..1d"},
		{func(c *Config) { c.Terminator = "ab" }, `terminator: terminator "ab" is not one character`},
		{func(c *Config) { c.Vessel = true }, `vessel: format "vaisala-wxt" has no vessel`},
		{func(c *Config) { c.Match = "x" }, `match: format "vaisala-wxt" has no match`},
		{func(c *Config) { c.Format, c.Checksum = NMEA, "none" }, `checksum: checksum "none" is not required or optional`},
		{func(c *Config) { c.Values = []Value{{From: "Ta", To: "temperature_c"}} }, `values[0].to: "temperature_c" is not kind.value`},
		{func(c *Config) { c.Values = []Value{{From: "Ta", To: "weather.temperature_c", Unit: "C"}} }, "values[0].unit: the lines of this format carry their units"},
		{func(c *Config) { c.Format = Pattern }, "values: want the values of the line"},
		{func(c *Config) { c.Format, c.Values = Pattern, []Value{{From: "1", To: "river.level_m"}} }, "match: want either match"},
		{func(c *Config) {
			c.Format, c.Separator, c.Values = Pattern, ",", []Value{{From: "0", To: "river.level_m"}}
		}, `values[0].from: from "0" is not a position in 1..256`},
		{func(c *Config) { c.Format, c.Match, c.Values = Pattern, "(", []Value{{From: "a", To: "river.level_m"}} }, "match: error parsing regexp"},
		{func(c *Config) {
			c.Format, c.Match, c.Values = Pattern, "(?P<b>x)", []Value{{From: "a", To: "river.level_m"}}
		}, "values[0].from: match has no group (?P<a>...)"},
		{func(c *Config) {
			c.Format, c.Separator, c.Values = Pattern, ",", []Value{{From: "1", To: "river.level_m", Unit: "C"}}
		}, `values[0].unit: unit "C" cannot become the unit in the name "level_m"`},
		{func(c *Config) {
			c.Format, c.Separator, c.Values = Pattern, ",", []Value{{From: "1", To: "river.level_m", Unit: "yd"}}
		}, `values[0].unit: unit "yd" is not one of m mm`},
		{func(c *Config) { c.Format = SDI12 }, `device: format "sdi-12" has no device`},
		{func(c *Config) { c.Format, c.Device = SDI12, "" }, "sensors: 0 sensors on the bridge"},
		{func(c *Config) { c.Format, c.Device, c.Sensors = SDI12, "", []Sensor{well("00", "w", "X")} }, "sensors[0].address: address \"00\""},
		{func(c *Config) { c.Format, c.Device, c.Sensors = SDI12, "", []Sensor{well("0", "w", "X")} }, "sensors[0].command: command \"X\""},
		{func(c *Config) {
			c.Format, c.Device, c.Sensors = SDI12, "", []Sensor{well("0", "w", ""), well("0", "v", "")}
		}, "sensors[1]: sensor \"0\" is asked \"MC\" by sensors[0] already"},
		{func(c *Config) {
			c.Format, c.Device, c.Sensors = SDI12, "", []Sensor{well("0", "w", ""), well("1", "w", "")}
		}, "sensors[1].values: river.level_m of device \"w\" is that of sensors[0] already"},
	} {
		cfg := wxtConfig()
		c.change(&cfg)
		var all []string
		for _, f := range cfg.Validate() {
			all = append(all, f.String())
		}
		got := strings.Join(all, "\n")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("got\n%s\nwant %s", got, c.want)
		}
		if _, err := New(cfg, newShelf(), nil, nil); (err == nil) != (got == "") {
			t.Errorf("New: %v with faults %q", err, got)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	for name, line := range map[string]string{
		"nmea": "$WIMWV,297.6,R,5.6,N,A*2A", "wxt": strings.TrimSpace(wxtLine), "maxbotix": "R1234", "columns": "2026-11-22T08:00,3.28084,x,70.0,12",
	} {
		b.Run(name, func(b *testing.B) {
			c := configs()[name]
			d, out := newDecoder(&c), &batch{device: "d", metrics: newMetrics("bench", nil)}
			b.ReportAllocs()
			for b.Loop() {
				out.line()
				if d.decode([]byte(line), testNow, out) != used {
					b.Fatal("the line was not used")
				}
				out.take()
			}
		})
	}
}
