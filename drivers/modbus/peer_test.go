package modbus

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// plain is a server without faults and without a record of requests, for
// benchmarks.
type plain struct{ wait sync.WaitGroup }

func (s *plain) listen(t testing.TB) (address string, stop func()) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.wait.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		frame, answer := make([]byte, 12), make([]byte, maxFrameBytes)
		for {
			if _, err := io.ReadFull(conn, frame); err != nil {
				return
			}
			size := 2 * int(binary.BigEndian.Uint16(frame[10:]))
			copy(answer, frame[:8])
			binary.BigEndian.PutUint16(answer[4:], uint16(3+size))
			answer[8] = byte(size)
			if _, err := conn.Write(answer[:9+size]); err != nil {
				return
			}
		}
	})
	return listener.Addr().String(), func() { listener.Close() }
}

// pymodbus as the weather station: 500 holds its own address and so on. The
// datastore ends before the radiation's register, so that its exception is met.
const pymodbusServer = `
import sys
from pymodbus.server import StartTcpServer
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusSlaveContext, ModbusServerContext
block = ModbusSequentialDataBlock(500, list(range(500, 514)))
store = ModbusSlaveContext(hr=block, ir=block, zero_mode=True)
StartTcpServer(context=ModbusServerContext(slaves={7: store}, single=False), address=("127.0.0.1", int(sys.argv[1])))
`

func findPymodbus(t *testing.T) (python string) {
	t.Helper()
	for _, candidate := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(candidate, "-c", "import pymodbus.server").Run() == nil {
			return candidate
		}
	}
	t.Skip("pymodbus is not installed (Debian: python3-pymodbus)")
	return ""
}

// freePort is one that nobody listens on, below those that the system gives to
// outgoing connections: who dials one of those again and again is once connected to
// itself.
func freePort(t *testing.T) int {
	t.Helper()
	for tries := 0; ; tries++ {
		listener, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", 10_000+rand.N(20_000)))
		if err == nil {
			defer listener.Close()
			return listener.Addr().(*net.TCPAddr).Port
		}
		if tries == 100 {
			t.Fatal(err)
		}
	}
}

// Against pymodbus (Debian: python3-pymodbus).
func TestPymodbus(t *testing.T) {
	python := findPymodbus(t)
	t.Parallel()
	port := freePort(t)
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	peer := exec.Command(python, "-c", pymodbusServer, strconv.Itoa(port))
	var said bytes.Buffer
	peer.Stderr = &said
	defer func() {
		if t.Failed() {
			t.Logf("pymodbus said: %s", said.String())
		}
	}()
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { peer.Process.Kill(); peer.Wait() }()
	ready := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(ready) {
			t.Fatalf("pymodbus does not listen: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
	cfg := Config{Name: "line", Connect: "tcp://" + address, Interval: seconds(0.05), Timeout: seconds(1),
		Units: []Unit{{ID: 7, Device: "a", Profile: "weather-485"}}}
	shelf := newShelf()
	line, reg := newLine(t, cfg, profilesOf(t), shelf)
	over := make(chan error, 1)
	go func() { over <- line.Run(t.Context()) }()
	shelf.until(t, "three readings", func() bool { return len(shelf.of("a", "weather")) >= 3 })
	peer.Process.Kill()
	if err := <-over; err == nil || !strings.HasPrefix(err.Error(), `modbus line "line": `) {
		t.Errorf("Run returned %v after the server was killed", err)
	}
	want := map[string]float64{"wind_speed_ms": 50, "temperature_c": 50.5, "pressure_hpa": 509, "illuminance_lx": 510<<16 | 511, "rain_total_mm": 51.3}
	r := shelf.of("a", "weather")[2]
	for name, number := range want {
		if got, _ := r.Number(name); got != number {
			t.Errorf("%s is %v, want %v", name, got, number)
		}
	}
	if len(r.Values) != 10 || count(t, reg, "haidang_modbus_exceptions_total", "2") == 0 {
		t.Errorf("%d values: want 10 and exceptions 2 for the register that is not there", len(r.Values))
	}
}
