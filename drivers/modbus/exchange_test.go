package modbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	goburrow "github.com/goburrow/modbus"

	"haidang/gateway/telemetry"
)

var faultNames = [faults]string{"right", "byte by byte", "twice", "stale first", "wrong transaction", "wrong unit", "wrong function",
	"wrong protocol", "short count", "long count", "lying count", "truncated", "truncated and closed", "garbage before",
	"zero length", "huge length", "late", "silence", "reset", "closed", "flood"}

// inTurn gives the faults one by one, and then right answers.
func inTurn(row ...fault) func() fault {
	next := make(chan fault, len(row))
	for _, f := range row {
		next <- f
	}
	return func() fault {
		select {
		case f := <-next:
			return f
		default:
			return right
		}
	}
}

func bareLine(t testing.TB, timeout time.Duration, address string) *Line {
	cfg := Config{Name: "line", Connect: "tcp://" + address, Timeout: telemetry.Duration(timeout),
		Units: []Unit{{ID: 1, Device: "a", Profile: "weather-485"}}}
	line, _ := newLine(t, cfg, profilesOf(t), newShelf())
	t.Cleanup(line.buses[0].medium.Close)
	return line
}

// ask reads a block of a unit and checks every bit of what comes back.
func ask(line *Line, unit int, table string, first, count int) (wrong string, err error) {
	function := map[string]byte{Holding: 3, Input: 4, Coil: 1, Discrete: 2}[table]
	u := *line.buses[0].units[0]
	u.config = &Unit{ID: unit}
	answer, err := line.buses[0].request(context.Background(), &u, span{table, first, count})
	if err != nil {
		return "", err
	}
	for i := range count {
		want := mark(byte(unit), function, first+i)
		var got uint16
		if bits(table) {
			want &= 1
			got = uint16(answer[i/8] >> (i % 8) & 1)
		} else {
			got = binary.BigEndian.Uint16(answer[2*i:])
		}
		if got != want {
			return fmt.Sprintf("unit %d %s %d reads %d, not %d", unit, table, first+i, got, want), nil
		}
	}
	return "", nil
}

// Each fault on a real socket: it gives the right values or an error, and the
// next request succeeds.
func TestFaultsOnSockets(t *testing.T) {
	for what := range faults {
		t.Run(strings.ReplaceAll(faultNames[what], " ", "-"), func(t *testing.T) {
			t.Parallel()
			s := &server{lateness: 600 * time.Millisecond, fault: inTurn(right, what)}
			address, _ := s.listen(t)
			line := bareLine(t, 500*time.Millisecond, address)
			if wrong, err := ask(line, 7, Holding, 90, 3); wrong != "" || err != nil {
				t.Fatalf("before the fault: %s %v", wrong, err)
			}
			wrong, err := ask(line, 7, Holding, 100, 5)
			if wrong != "" {
				t.Errorf("wrong value: %s", wrong)
			}
			// A used connection that proves closed is made anew within the request.
			expected := what.harmless() || what == closed || what == reset || what == truncatedClose
			if (err == nil) != expected {
				t.Errorf("error %v, expected one: %v", err, !expected)
			}
			for i := range 5 {
				if wrong, err := ask(line, 7, Input, 200+i, 5); wrong != "" || err != nil {
					t.Fatalf("request %d after the fault: %s %v", i, wrong, err)
				}
			}
		})
	}
}

// Random faults in random order: never a wrong value, and a request whose
// answers are right never fails.
func TestRandomFaults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	synctest.Test(t, func(t *testing.T) {
		random := rand.New(rand.NewPCG(seed, 1))
		var planned, applied atomic.Int64
		s := &server{lateness: 1200 * time.Millisecond, fault: func() fault { applied.Add(1); return fault(planned.Load()) }}
		line := bareLine(t, time.Second, "127.0.0.1:502")
		line.buses[0].medium.(*tcp).dial = s.pipe
		failed := 0
		for n := range 5000 {
			plan := right
			if random.IntN(2) == 0 {
				plan = fault(random.IntN(int(faults)))
			}
			planned.Store(int64(plan))
			table := []string{Holding, Input, Coil, Discrete}[random.IntN(4)]
			longest := maxWords
			if bits(table) {
				longest = maxBits
			}
			quantity := 1 + random.IntN(longest)
			what := fmt.Sprintf("request %d, %s", n, faultNames[plan])
			wrong, err := ask(line, random.IntN(248), table, random.IntN(65536-quantity), quantity)
			if wrong != "" {
				t.Fatalf("%s: %s", what, wrong)
			}
			if err != nil {
				failed++
				if plan.harmless() {
					t.Fatalf("%s: %v", what, err)
				}
			}
		}
		if failed < 1000 || applied.Load() < 5000 {
			t.Errorf("%d of 5000 requests failed, %d answers: the faults do not reach the client", failed, applied.Load())
		}
		line.buses[0].medium.Close()
		s.hangUp()
		synctest.Wait()
	})
}

// The answer that comes too late never serves the next request, not even when a
// gateway sends it on the new connection.
func TestLateAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &server{lateness: 1500 * time.Millisecond, fault: inTurn(silence, staleFirst, late, right, staleFirst)}
		line := bareLine(t, time.Second, "127.0.0.1:502")
		line.buses[0].medium.(*tcp).dial = s.pipe
		for i, fails := range []bool{true, false, true, false, false} {
			wrong, err := ask(line, 1, Holding, 10*i, 2)
			if wrong != "" || (err != nil) != fails {
				t.Errorf("request %d: wrong %q, error %v, expected one: %v", i, wrong, err, fails)
			}
			if fails && reasonOf(err) != reasonTimeout {
				t.Errorf("request %d: reason %q of %v", i, reasonOf(err), err)
			}
		}
		line.buses[0].medium.Close()
		s.hangUp()
		synctest.Wait()
	})
}

func TestCancelEndsRequest(t *testing.T) {
	s := &server{fault: func() fault { return silence }}
	address, _ := s.listen(t)
	line := bareLine(t, time.Minute, address)
	ctx, cancel := context.WithCancel(context.Background())
	start := time.Now()
	time.AfterFunc(20*time.Millisecond, cancel)
	_, err := line.buses[0].request(ctx, line.buses[0].units[0], line.buses[0].units[0].blocks[0].span())
	if err != context.Canceled || time.Since(start) > 10*time.Second {
		t.Errorf("error %v after %s, expected context.Canceled at once", err, time.Since(start))
	}
}

func TestReasons(t *testing.T) {
	exception := func(code byte) error {
		return fmt.Errorf("read: %w", &goburrow.ModbusError{FunctionCode: 0x83, ExceptionCode: code})
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&connectError{"x", os.ErrDeadlineExceeded}, reasonConnect},
		{fmt.Errorf("x: %w", os.ErrDeadlineExceeded), reasonTimeout},
		{fmt.Errorf("x: %w", errBadAnswer), reasonAnswer},
		{exception(2), ""},
		{exception(10), reasonGateway},
		{exception(11), reasonGateway},
	} {
		if got := reasonOf(c.err); got != c.want {
			t.Errorf("reason of %v is %q, expected %q", c.err, got, c.want)
		}
	}
}
