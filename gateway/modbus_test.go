package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// An instrument answers Modbus TCP: register n holds n until it is written.
type instrument struct {
	listener net.Listener
	mu       sync.Mutex
	written  map[uint16]uint16
	conns    int
	wait     sync.WaitGroup
}

func newInstrument(t *testing.T) *instrument {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	i := &instrument{listener: listener, written: map[uint16]uint16{}}
	i.wait.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			i.mu.Lock()
			i.conns++
			i.mu.Unlock()
			i.wait.Go(func() { i.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); i.wait.Wait() })
	return i
}

func (i *instrument) serve(conn net.Conn) {
	defer conn.Close()
	for {
		frame := make([]byte, 12)
		if _, err := io.ReadFull(conn, frame); err != nil {
			return
		}
		first, second := binary.BigEndian.Uint16(frame[8:]), binary.BigEndian.Uint16(frame[10:])
		pdu := frame[7:12:12]
		i.mu.Lock()
		if frame[7] == 6 {
			i.written[first] = second
		} else {
			pdu = []byte{frame[7], byte(2 * second)}
			for n := range second {
				value, ok := i.written[first+n]
				if !ok {
					value = first + n
				}
				pdu = binary.BigEndian.AppendUint16(pdu, value)
			}
		}
		i.mu.Unlock()
		binary.BigEndian.PutUint16(frame[4:], uint16(len(pdu)+1))
		if _, err := conn.Write(append(frame[:7:7], pdu...)); err != nil {
			return
		}
	}
}

func (i *instrument) connections() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.conns
}

// TestModbusByHand reads and writes through a gateway that polls the same line,
// then with none, and refuses what the configuration does not allow.
func TestModbusByHand(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts a process")
	}
	i := newInstrument(t)
	g := prepare(t, fmt.Sprintf(`
modbus:
  - name: line-1
    connect: "tcp://%s"
    interval: 200ms
    units:
      - {id: 1, device: radar, profile: radar-level-sen0676, writes: [installation_height_m]}
      - {id: 2, device: locked, profile: radar-level-sen0676}
`, i.listener.Addr()))
	g.start()
	eventually(t, "the instrument's reading in InfluxDB", 10*time.Second, func() bool {
		rows := g.rows(`SELECT level_m FROM river WHERE device = 'radar' LIMIT 1`)
		return len(rows) == 1 && fmt.Sprint(rows[0][1]) == "0.003"
	})
	before := i.connections()
	if out := g.must("modbus", "read", "line-1", "radar"); !strings.Contains(out, "river.level_m") || !strings.Contains(out, "0.003") {
		t.Errorf("values:\n%s", out)
	}
	out := g.must("modbus", "read", "line-1", "2", "--address", "0x10", "--count", "3")
	if want := "ADDRESS          HEX   UINT16\n16       0x0010  0010  16\n17       0x0011  0011  17\n18       0x0012  0012  18\n"; out != want {
		t.Errorf("registers:\n%swant\n%s", out, want)
	}
	out = g.must("modbus", "write", "line-1", "radar", "installation_height_m", "6.25", "--by", "Lan")
	if want := "installation_height_m of radar is 6.25 (0x0271): read back, and the same\n"; out != want {
		t.Errorf("write: %swant %s", out, want)
	}
	if _, errors, code := g.verb("modbus", "write", "line-1", "locked", "installation_height_m", "6.25"); code != 1 || !strings.Contains(errors, "not allowed by the configuration; writes of that unit are: none") {
		t.Errorf("a write that is not allowed: %d %s", code, errors)
	}
	if _, errors, code := g.verb("modbus", "read", "line-2", "1"); code != 1 || !strings.Contains(errors, `there is no Modbus line "line-2"; expected one of line-1`) {
		t.Errorf("an unknown line: %d %s", code, errors)
	}
	if n := i.connections(); n != before {
		t.Errorf("%d connections to the instrument, %d before: they go through the gateway's own", n, before)
	}
	if n := g.metric("haidang_modbus_writes_total", `result="done"`); n != 1 {
		t.Errorf("%v writes are counted, want 1", n)
	}
	if log := g.output.String(); !strings.Contains(log, "written by hand") || !strings.Contains(log, "by=Lan") {
		t.Errorf("the write is not in the log:\n%s", log)
	}
	// Over the network, nobody without an account.
	response, err := http.Post("http://"+g.ports.console+"/api/v1/modbus/write", "application/json", strings.NewReader(`{"line":"line-1","unit":"radar","name":"installation_height_m","number":1}`))
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("a write without an account is answered %d, want 403", response.StatusCode)
	}
	g.stop()

	if out := g.must("modbus", "read", "line-1", "radar"); !strings.Contains(out, "river.installation_height_m  6.25") {
		t.Errorf("values without a gateway:\n%s", out)
	}
	if out := g.must("modbus", "read", "tcp://"+i.listener.Addr().String(), "--unit", "255", "--address", "256", "--count", "2", "--type", "uint32", "--order", "CDAB"); !strings.Contains(out, "256      0x0100  01000101  16843008") {
		t.Errorf("a connection by hand:\n%s", out)
	}
	if out := g.must("modbus", "read", "tcp://"+i.listener.Addr().String(), "--profile", "wind-speed-485"); !strings.Contains(out, "weather.wind_speed_ms  0") {
		t.Errorf("a profile by hand:\n%s", out)
	}
}

func TestRegisterAddress(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "500": 500, "0500": 500, "0x1F4": 500, "0X1f4": 500, "65535": 65535} {
		if got, err := registerAddress(text); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0x", "65536", "-1", "1_000", "0b1", "0o7", "1F4"} {
		if got, err := registerAddress(text); err == nil {
			t.Errorf("%s: %d", text, got)
		}
	}
}

func TestModbusUsage(t *testing.T) {
	for _, c := range []struct {
		args, want string
		code       int
	}{
		{"read", "read takes a connection", exitUsage},
		{"read tcp://h", "--address is missing", exitUsage},
		{"read tcp://h 2", "with a connection, the unit is --unit 2", exitUsage},
		{"read line-1", "the unit of line line-1 is missing", exitUsage},
		{"read tcp://h --address 70000", `--address "70000" is not in 0..65535`, exitUsage},
		{"read tcp://h --profile no", `profile "no" is not known; known are air-node-485, `, exitUsage},
		{"read serial:///dev/x?baud=7 --address 1", `baud "7" is not in 50..12000000`, exitUsage},
		{"read tcp://h --address 1 --unit 300", `--unit "300" is not in 1..247`, exitUsage},
		{"read tcp://h --address 1 --unit -1", `--unit "-1" is not in 1..247`, exitUsage},
		{"read tcp://h --address 65535 --count 2", "addresses 65535..65536 are not in 0..65535", exitUsage},
		{"read tcp://h --address 1 --count 126", "count 126 is not in 1..125", exitUsage},
		{"read tcp://h --address 1 --table weird", `table "weird" is not one of holding`, exitUsage},
		{"read tcp://h --address 1 --profile weather-485", "one of them", exitUsage},
		{"read line-1 1 --profile weather-485", "a line has its own in the configuration", exitUsage},
		{"read line-1 1 --data /nowhere", "no gateway runs on the data folder /nowhere", exitFailed},
		{"write line-1 1 relay on", `"on" is not a number`, exitUsage},
		{"write line-1 1 relay", "write takes a line, a unit, a name and a number", exitUsage},
		{"profiles no", `profile "no" is not known`, exitUsage},
	} {
		var stdout, stderr bytes.Buffer
		code := execute(t.Context(), environment{stdout: &stdout, stderr: &stderr}, append([]string{"modbus"}, strings.Fields(c.args)...))
		if code != c.code || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%s: code %d, %s; want %d, %s", c.args, code, &stderr, c.code, c.want)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := execute(t.Context(), environment{stdout: &stdout, stderr: &stderr}, []string{"modbus", "profiles"}); code != 0 || !strings.Contains(stdout.String(), "keller-nanolevel") {
		t.Errorf("profiles: %d\n%s%s", code, &stdout, &stderr)
	}
}
