package modbus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"haidang/gateway/telemetry"
)

// inBubble runs a line against the server under simulated time, for the given
// time, and returns what Run returned.
func inBubble(t *testing.T, s *server, cfg Config, profiles *Profiles, shelf *shelf, lasting time.Duration) (*Line, func(name, label string) float64) {
	t.Helper()
	line, reg := newLine(t, cfg, profiles, shelf)
	line.buses[0].medium.(*tcp).dial = s.pipe
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	if err := line.Run(ctx); err != nil {
		t.Errorf("Run: %v", err)
	}
	s.hangUp()
	synctest.Wait()
	return line, func(name, label string) float64 { return count(t, reg, name, label) }
}

func seconds(n float64) telemetry.Duration { return telemetry.Duration(n * float64(time.Second)) }

// Polls keep to the grid of the first one, however long each answer takes.
func TestScheduleDoesNotDrift(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &server{fault: func() fault { return late }, lateness: 300 * time.Millisecond}
		cfg := Config{Name: "line", Connect: "tcp://h", Interval: seconds(10), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level", Interval: seconds(25)}}}
		shelf := newShelf()
		inBubble(t, s, cfg, profilesOf(t, level), shelf, 101*time.Second)
		var got []string
		for _, r := range s.requests() {
			got = append(got, fmt.Sprintf("%d@%s", r.unit, r.at.Sub(start)))
		}
		// Unit 2 is staggered by 100 ms, and waits for the answer to unit 1.
		want := "1@0s 2@300ms 1@10s 1@20s 2@25.1s 1@30s 1@40s 1@50s 2@50.3s 1@1m0s 1@1m10s 2@1m15.1s 1@1m20s 1@1m30s 1@1m40s 2@1m40.3s"
		if row := strings.Join(got, " "); row != want {
			t.Errorf("requests\n%s, want\n%s", row, want)
		}
		if a, b := shelf.of("a", "river"), shelf.of("b", "river"); len(a) != 11 || len(b) != 5 {
			t.Errorf("%d and %d readings, want 11 and 5", len(a), len(b))
		}
	})
}

// A unit that does not answer is asked once more, told as down, and put off
// by 1, 2, 4, 8, 10, 10... intervals; the others are read as ever.
func TestSilentUnitBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var asked []time.Duration
		dead := false
		s := &server{}
		s.refuse = func(unit, _ byte, _, _ int) byte {
			mu.Lock()
			defer mu.Unlock()
			if dead = unit == 2; dead && time.Since(start) > 15*time.Second {
				asked = append(asked, time.Since(start).Truncate(time.Second))
			}
			return 0
		}
		s.fault = func() fault {
			mu.Lock()
			defer mu.Unlock()
			if now := time.Since(start); dead && now > 15*time.Second && now < 500*time.Second {
				return silence
			}
			return right
		}
		cfg := Config{Name: "line", Connect: "tcp://h", Interval: seconds(10), Timeout: seconds(1),
			Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level"}, {ID: 3, Device: "c", Profile: "level"}}}
		shelf := newShelf()
		_, metric := inBubble(t, s, cfg, profilesOf(t, level), shelf, 601*time.Second)
		s10 := func(list ...int) (out []time.Duration) {
			for _, n := range list {
				out = append(out, time.Duration(n)*time.Second)
			}
			return out
		}
		// 20 (twice), then 30, 50, 90, 170, 270, ... until it answers at 570.
		if want := s10(20, 21, 30, 50, 90, 170, 270, 370, 470, 570, 580, 590, 600); !reflect.DeepEqual(asked, want) {
			t.Errorf("unit 2 asked at %v, want %v", asked, want)
		}
		if a, c := shelf.of("a", "river"), shelf.of("c", "river"); len(a) != 61 || len(c) != 61 {
			t.Errorf("the others have %d and %d readings, want 61", len(a), len(c))
		}
		if a, b, line := shelf.links("a"), shelf.links("b"), shelf.links("line"); a != "1" || b != "101" || line != "1" {
			t.Errorf("links: a %s, b %s, line %s, want 1, 101, 1", a, b, line)
		}
		cause := shelf.of("b", "link")[1]
		if cause.Text("cause") != "read unit 2, holding 4..4: no answer within 1s" {
			t.Errorf("cause %q", cause.Text("cause"))
		}
		if n := metric("haidang_modbus_failures_total", reasonTimeout); n != 9 {
			t.Errorf("%v timeouts counted, want 9", n)
		}
		if n := metric("haidang_modbus_missed_polls_total", ""); n != 0 {
			t.Errorf("%v missed polls, want 0", n)
		}
	})
}

// A line that takes longer than its interval leaves slots out and counts them.
func TestBusyLineMissesPolls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{fault: func() fault { return late }, lateness: 700 * time.Millisecond}
		cfg := Config{Name: "line", Connect: "tcp://h", Interval: seconds(1), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level"}, {ID: 3, Device: "c", Profile: "level"}}}
		shelf := newShelf()
		_, metric := inBubble(t, s, cfg, profilesOf(t, level), shelf, 60500*time.Millisecond)
		polls := len(s.requests())
		if missed := metric("haidang_modbus_missed_polls_total", ""); polls < 86 || polls > 87 || missed < 85 || float64(polls)+missed > 183 {
			t.Errorf("%d polls and %v missed in 60 s, want 86 and about 95", polls, missed)
		}
		for _, id := range []string{"a", "b", "c"} {
			if n := len(shelf.of(id, "river")); n < 25 || n > 32 {
				t.Errorf("%s has %d readings, want about a third of 86", id, n)
			}
		}
	})
}

// A retry saves a single lost answer: no link reading, no lost value.
func TestOneLostAnswerIsNoNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{fault: inTurn(right, silence, right, garbageBefore, right, reset)}
		cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}
		shelf := newShelf()
		inBubble(t, s, cfg, profilesOf(t, level), shelf, 61*time.Second)
		if n := len(shelf.of("a", "river")); n != 7 || shelf.links("a") != "1" {
			t.Errorf("%d readings and links %s, want 7 and 1", n, shelf.links("a"))
		}
	})
}

// An exception is an answer; those of a gateway are not.
func TestExceptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var code byte
		var mu sync.Mutex
		s := &server{refuse: func(byte, byte, int, int) byte { mu.Lock(); defer mu.Unlock(); return code }}
		cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}
		shelf := newShelf()
		for at, c := range map[time.Duration]byte{15: 6, 35: 0, 45: 11, 65: 0} {
			time.AfterFunc(at*time.Second, func() { mu.Lock(); defer mu.Unlock(); code = c })
		}
		_, metric := inBubble(t, s, cfg, profilesOf(t, level), shelf, 81*time.Second)
		// Answers at 0, 10, 40, 70, 80; busy at 20, 30; behind the gateway at 50 (twice), 60.
		if n := len(shelf.of("a", "river")); n != 4 || shelf.links("a") != "101" {
			t.Errorf("%d readings and links %s, want 4 and 101", n, shelf.links("a"))
		}
		if busy, gateway, failed := metric("haidang_modbus_exceptions_total", "6"), metric("haidang_modbus_exceptions_total", "11"), metric("haidang_modbus_failures_total", reasonGateway); busy != 2 || gateway != 3 || failed != 3 {
			t.Errorf("exceptions 6: %v, 11: %v, failures: %v; want 2, 3, 3", busy, gateway, failed)
		}
		if n := metric("haidang_modbus_connections_total", ""); n != 1 {
			t.Errorf("%v connections: exceptions are not faults of the connection", n)
		}
	})
}

// A block that is refused is narrowed until only what the unit lacks is missing.
func TestRefusedBlockIsSplit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{register: func(_, _ byte, address int) (uint16, byte) {
			if address == 0x0202 { // a station without radiation
				return 0, 2
			}
			return uint16(address - 0x01F3), 0
		}}
		cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "weather-485"}}}
		var log bytes.Buffer
		shelf := newShelf()
		line, _ := newLine(t, cfg, profilesOf(t), shelf)
		line.buses[0].logger = slog.New(slog.NewTextHandler(&log, nil))
		line.buses[0].medium.(*tcp).dial = s.pipe
		ctx, cancel := context.WithTimeout(t.Context(), 21*time.Second)
		defer cancel()
		if err := line.Run(ctx); err != nil {
			t.Error(err)
		}
		s.hangUp()
		synctest.Wait()
		weather := shelf.of("a", "weather")
		if len(weather) != 3 || len(weather[0].Values) != 10 || len(shelf.of("a", "air")) != 3 || shelf.links("a") != "1" {
			t.Errorf("weather %v, links %s: want 3 readings of 10 values and the link up", weather, shelf.links("a"))
		}
		if pressure, _ := weather[2].Number("pressure_hpa"); pressure != 10 {
			t.Errorf("pressure %v after the split, want 10", pressure)
		}
		if _, there := weather[0].Number("radiation_wm2"); there {
			t.Error("radiation is there, though the unit refuses it")
		}
		asked := s.requests()
		if last := asked[len(asked)-1]; last.first != 0x0202 || last.count != 1 {
			t.Errorf("the last read is %+v, want 0x0202 alone", last)
		}
		if n := strings.Count(log.String(), "unit refuses registers"); n != 1 {
			t.Errorf("the refusal is logged %d times, want once:\n%s", n, log.String())
		}
	})
}

// refusing runs a unit with three values in one block that are refused while
// the server says so, and returns when the whole block was read,
// and the log.
func refusing(t *testing.T, lasting time.Duration, refuse func(since time.Duration, first, count int) byte) (reads []string, log string) {
	start := time.Now()
	s := &server{refuse: func(_, _ byte, first, count int) byte { return refuse(time.Since(start), first, count) }}
	triple := "name: triple\nregisters: [{value: a.x, address: 1}, {value: a.y, address: 2}, {value: b.z, address: 3}]"
	cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "triple"}}}
	var said bytes.Buffer
	line, _ := newLine(t, cfg, profilesOf(t, triple), newShelf())
	line.buses[0].logger = slog.New(slog.NewTextHandler(&said, nil))
	line.buses[0].medium.(*tcp).dial = s.pipe
	ctx, cancel := context.WithTimeout(t.Context(), lasting)
	defer cancel()
	if err := line.Run(ctx); err != nil {
		t.Error(err)
	}
	s.hangUp()
	synctest.Wait()
	for _, r := range s.requests() {
		if r.count == 3 {
			reads = append(reads, fmt.Sprint(r.at.Sub(start)))
		}
	}
	return reads, said.String()
}

// An instrument that refuses everything while it starts: one warning with all
// values, the whole block again after ten minutes, and one line that says so.
func TestRefusedBlockIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, log := refusing(t, 10*time.Minute+25*time.Second, func(since time.Duration, _, _ int) byte {
			if since < 35*time.Second {
				return 2
			}
			return 0
		})
		if got := strings.Join(whole, " "); got != "0s 10m0s 10m10s 10m20s" {
			t.Errorf("the whole block is read at %s, want 0s, and from 10m0s on", got)
		}
		lines := strings.Split(strings.TrimSpace(log), "\n")
		if len(lines) != 2 ||
			!strings.Contains(lines[0], `level=WARN msg="unit refuses registers"`) || !strings.Contains(lines[0], `device=a values="a.x, a.y, b.z" error="read unit 1, holding 1..1: `) ||
			!strings.Contains(lines[1], `level=INFO msg="unit answers registers again that it refused"`) || !strings.Contains(lines[1], `values="a.x, a.y, b.z"`) {
			t.Errorf("log\n%swant one warning and one line when they are answered", log)
		}
	})
}

// What is lacking for good is asked for less and less.
func TestRefusedBlockIsTriedLessAndLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, log := refusing(t, 25*time.Hour, func(_ time.Duration, first, count int) byte {
			if first <= 2 && 2 < first+count {
				return 3
			}
			return 0
		})
		if got, want := strings.Join(whole, " "), "0s 10m0s 30m0s 1h10m0s 2h30m0s 5h10m0s 10h30m0s 16h30m0s 22h30m0s"; got != want {
			t.Errorf("the whole block is read at\n%s, want\n%s", got, want)
		}
		if n := strings.Count(log, "\n"); n != 1 || !strings.Contains(log, "level=WARN") || !strings.Contains(log, "values=a.y ") {
			t.Errorf("log\n%swant one warning of a.y", log)
		}
	})
}

// A unit that is busy every other time does not fill the log.
func TestRefusalsThatComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		whole, log := refusing(t, 19*time.Minute+55*time.Second, func(since time.Duration, _, _ int) byte {
			if since/(10*time.Second)%2 == 0 {
				return 6
			}
			return 0
		})
		if len(whole) != 120 {
			t.Errorf("%d reads of the whole block, want 120: exception 6 does not split", len(whole))
		}
		if warn, info := strings.Count(log, "level=WARN"), strings.Count(log, "level=INFO"); warn != 2 || info != 2 {
			t.Errorf("%d warnings, %d lines that it is over, want one each in ten minutes:\n%s", warn, info, log)
		}
	})
}

func TestNamed(t *testing.T) {
	values := strings.Split(strings.Repeat("v ", maxNamed+3), " ")[:maxNamed+3]
	if got := named(values); !strings.HasSuffix(got, "v, v and 3 more") || strings.Count(got, "v") != maxNamed {
		t.Errorf("got %s", got)
	}
}

// Two instruments of one station: it is connected while both answer.
func TestTwoUnitsOfOneDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		s := &server{refuse: func(unit, _ byte, _, _ int) byte {
			if now := time.Since(start); unit == 2 && now > 15*time.Second && now < 35*time.Second {
				return 11
			}
			return 0
		}}
		rain := "name: rain\nregisters: [{value: rain.rain_total_mm, address: 9}]"
		cfg := Config{Name: "line", Connect: "tcp://h", Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "a", Profile: "rain"}}}
		shelf := newShelf()
		inBubble(t, s, cfg, profilesOf(t, level, rain), shelf, 61*time.Second)
		if shelf.links("a") != "101" || len(shelf.of("a", "river")) != 7 {
			t.Errorf("links %s and %d levels, want 101 and 7", shelf.links("a"), len(shelf.of("a", "river")))
		}
	})
}

// A long pause closes the connection, and the next poll makes a new one.
func TestIdleConnectionIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Name: "line", Connect: "tcp://h", Interval: seconds(300), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}
		shelf := newShelf()
		_, metric := inBubble(t, &server{}, cfg, profilesOf(t, level), shelf, 901*time.Second)
		if n := metric("haidang_modbus_connections_total", ""); n != 4 || len(shelf.of("a", "river")) != 4 || shelf.links("a")+shelf.links("line") != "11" {
			t.Errorf("%v connections, %d readings, links %s %s; want 4, 4, 1, 1", n, len(shelf.of("a", "river")), shelf.links("a"), shelf.links("line"))
		}
	})
}

// A server that hangs up after each answer is slow, not broken.
func TestServerClosesAfterEachAnswer(t *testing.T) {
	s := &server{}
	address, _ := s.listen(t)
	line := bareLine(t, time.Second, address)
	for i := range 3 {
		if wrong, err := ask(line, 1, Holding, i, 4); wrong != "" || err != nil {
			t.Fatalf("request %d: %s %v", i, wrong, err)
		}
		s.hangUp()
	}
}

// End to end on real sockets: links, values, a lost line, and a second run.
func TestRun(t *testing.T) {
	s := &server{register: func(_, _ byte, address int) (uint16, byte) { return uint16(address - 0x01F3), 0 }}
	address, stop := s.listen(t)
	cfg := Config{Name: "line", Connect: "tcp://" + address, Interval: seconds(0.02), Units: []Unit{{ID: 1, Device: "hue", Profile: "weather-485"}}}
	shelf := newShelf()
	line, reg := newLine(t, cfg, profilesOf(t), shelf)
	over := make(chan error, 1)
	go func() { over <- line.Run(t.Context()) }()
	shelf.until(t, "three readings", func() bool { return len(shelf.of("hue", "air")) >= 3 })
	stop()
	err := <-over
	var connect *connectError
	if !errors.As(err, &connect) || !strings.HasPrefix(err.Error(), `modbus line "line": `) || !strings.Contains(err.Error(), "connect to "+address) {
		t.Errorf("Run returned %v, want a connect error with the line's name", err)
	}
	if a, b := shelf.links("hue"), shelf.links("line"); a != "10" || b != "10" {
		t.Errorf("links %s and %s, want 10", a, b)
	}
	if err := line.Run(t.Context()); err == nil || shelf.links("line") != "10" {
		t.Errorf("a second run without a server: %v, links %s; want an error and nothing new to tell", err, shelf.links("line"))
	}
	if n := count(t, reg, "haidang_modbus_failures_total", reasonConnect); n < 2 {
		t.Errorf("%v failures to connect counted, want 2 or more", n)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skipf("the port was taken meanwhile: %v", err)
	}
	defer listener.Close()
	again := &server{register: s.register}
	go func() {
		if conn, err := listener.Accept(); err == nil {
			again.start(conn)
		}
	}()
	ctx, cancel := context.WithCancel(t.Context())
	go func() { over <- line.Run(ctx) }()
	shelf.until(t, "the link up again", func() bool { return shelf.links("hue") == "101" })
	cancel()
	if err := <-over; err != nil || shelf.links("line") != "101" {
		t.Errorf("stopped: %v, links %s; want nil and 101", err, shelf.links("line"))
	}
	again.hangUp()
	again.wait.Wait()
	first := shelf.of("hue", "weather")[0]
	if temperature, ok := first.Number("temperature_c"); !ok || temperature != 0.6 || !first.Time.IsZero() {
		t.Errorf("weather %+v: want temperature 0.6 and no time", first)
	}
}

// A peer that takes connections and drops them without an answer is no line.
func TestPeerDropsEveryConnection(t *testing.T) {
	s := &server{fault: func() fault { return closed }}
	address, _ := s.listen(t)
	cfg := Config{Name: "line", Connect: "tcp://" + address, Interval: seconds(0.02), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level"}}}
	shelf := newShelf()
	line, _ := newLine(t, cfg, profilesOf(t, level), shelf)
	if err := line.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "read unit 2, holding 4..4") {
		t.Errorf("Run returned %v, want the error of the last unit", err)
	}
	if shelf.links("a") != "0" || shelf.links("b") != "0" || shelf.links("line") != "10" {
		t.Errorf("links a %s, b %s, line %s", shelf.links("a"), shelf.links("b"), shelf.links("line"))
	}
}
