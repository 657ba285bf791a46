//go:build linux

package modbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"haidang/drivers/link"
	"haidang/drivers/link/ptytest"
)

// slave answers RTU requests on any stream of bytes.
func slave(s *server, line io.ReadWriter) {
	var arrived []byte
	buffer := make([]byte, 256)
	for {
		n, err := line.Read(buffer)
		if err != nil {
			return
		}
		for arrived = append(arrived, buffer[:n]...); len(arrived) >= 8; arrived = arrived[1:] {
			if crc16(arrived[:8]) != 0 {
				continue
			}
			frame := append([]byte{0, 0, 0, 0, 0, 6}, arrived[:6]...)
			if _, err := line.Write(withCRC(s.answer(frame)[6:])); err != nil {
				return
			}
			arrived = arrived[7:]
		}
	}
}

// A real serial port (a pseudo-terminal): values, and a port that is unplugged
// while nobody uses it.
func TestSerialPort(t *testing.T) {
	far, path := ptytest.Open(t)
	s := &server{}
	var serving sync.WaitGroup
	serving.Go(func() { slave(s, far) })
	shelf := newShelf()
	cfg := Config{Name: "line", Connect: "serial://" + path + "?baud=115200", Interval: seconds(60),
		Units: []Unit{{ID: 1, Device: "a", Profile: "level"}, {ID: 2, Device: "b", Profile: "level"}}}
	line, _ := newLine(t, cfg, profilesOf(t, level), shelf)
	over := make(chan error, 1)
	go func() { over <- line.Run(t.Context()) }()
	shelf.until(t, "a reading of each unit", func() bool { return len(shelf.of("a", "river")) == 1 && len(shelf.of("b", "river")) == 1 })
	answer, err := line.Registers(t.Context(), Query{Unit: "3", Table: Input, First: 700, Count: 100})
	if err != nil || len(answer) != 200 || binary.BigEndian.Uint16(answer[198:]) != mark(3, readInput, 799) {
		t.Errorf("100 registers by hand: % x, %v", answer, err)
	}
	unplugged := time.Now()
	far.Close()
	err = <-over
	if err == nil || !strings.Contains(err.Error(), "hung up") || time.Since(unplugged) > time.Second {
		t.Errorf("Run returned %v, %s after the port was unplugged; want an error within a second", err, time.Since(unplugged))
	}
	if got := shelf.links("line") + " " + shelf.links("a") + " " + shelf.links("b"); got != "10 10 10" {
		t.Errorf("links %s, want 10 10 10", got)
	}
	serving.Wait()
}

// Faults on a real serial port.
func TestSerialFaults(t *testing.T) {
	far, path := ptytest.Open(t)
	var serving sync.WaitGroup
	w := &wire{random: rand.New(rand.NewPCG(1, 1)), fault: inTurn(right, garbageBefore, silence, right, twice, corrupt, right, truncated)}
	serving.Go(func() { relay(w, far) })
	defer func() { far.Close(); serving.Wait() }()
	cfg := Config{Name: "line", Connect: "serial://" + path + "?baud=38400&parity=E", Timeout: seconds(0.1), Units: []Unit{{ID: 1, Device: "a", Profile: "level"}}}
	line, _ := newLine(t, cfg, profilesOf(t, level), newShelf())
	defer line.Close()
	failed := ""
	for i := range 12 {
		wrong, err := askRegisters(line, 9, Holding, 10*i, 3+i)
		if wrong != "" {
			t.Errorf("request %d: %s", i, wrong)
		}
		if err != nil {
			failed += fmt.Sprint(i, " ")
		}
	}
	if failed != "2 5 7 " {
		t.Errorf("requests %sfailed, want 2 5 7", failed)
	}
}

// relay puts a wire behind a file.
func relay(w *wire, far *os.File) {
	stream, _ := w.dial(context.Background())
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(far, stream) })
	defer reading.Wait()
	defer stream.Close()
	request := make([]byte, 8)
	for {
		if _, err := io.ReadFull(far, request); err != nil {
			return
		}
		if _, err := stream.Write(request); err != nil {
			return
		}
	}
}

// pymodbus with RTU frames: on a serial line made by socat, and over TCP.
const pymodbusRTU = `
import sys
from pymodbus.datastore import ModbusSequentialDataBlock, ModbusSlaveContext, ModbusServerContext
from pymodbus.framer.rtu_framer import ModbusRtuFramer
block = ModbusSequentialDataBlock(500, list(range(500, 520)))
coils = ModbusSequentialDataBlock(0, [1, 0, 1, 1, 0, 0, 0, 1, 1])
store = ModbusSlaveContext(hr=block, ir=block, co=coils, di=coils, zero_mode=True)
context = ModbusServerContext(slaves={7: store}, single=False)
if sys.argv[1] == "serial":
    from pymodbus.server import StartSerialServer
    StartSerialServer(context=context, framer=ModbusRtuFramer, port=sys.argv[2], baudrate=19200)
else:
    from pymodbus.server import StartTcpServer
    StartTcpServer(context=context, framer=ModbusRtuFramer, address=("127.0.0.1", int(sys.argv[2])))
`

const peerPump = `
name: peer-pump
registers:
  - {value: pump.first, address: 500, type: uint32}
  - {value: pump.coil, address: 3, table: coil}
writes:
  - {name: setpoint, address: 502, min: 0, max: 1000}
  - {name: pair, address: 504, type: int32, min: -1000000, max: 1000000}
  - {name: relay, address: 1, table: coil}
  - {name: relays, address: 4, table: coil, multiple: true}
`

func peerReadsAndWrites(t *testing.T, connect string) {
	cfg := Config{Name: "line", Connect: connect, Timeout: seconds(0.5), Units: []Unit{{ID: 7, Device: "a", Profile: "peer-pump", Writes: []string{"setpoint", "pair", "relay", "relays"}}}}
	line, _ := newLine(t, cfg, profilesOf(t, peerPump), newShelf())
	defer line.Close()
	deadline := time.Now().Add(10 * time.Second)
	for {
		readings, err := line.Read(t.Context(), "7")
		if err == nil {
			if first, _ := readings[0].Number("first"); first != 500<<16|501 {
				t.Errorf("first is %v", first)
			}
			if coil, _ := readings[0].Number("coil"); coil != 1 {
				t.Errorf("coil is %v", coil)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("pymodbus does not answer: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
	for name, number := range map[string]float64{"setpoint": 432, "pair": -70000, "relay": 1, "relays": 1} {
		if _, err := line.Write(t.Context(), "a", name, number, "test"); err != nil {
			t.Errorf("write: %v", err)
		}
	}
	if answer, err := line.Registers(t.Context(), Query{Unit: "7", Table: Discrete, First: 0, Count: 9}); err != nil || answer[0]&0x8D != 0x8D || answer[1] != 1 {
		t.Errorf("discrete inputs % x, %v", answer, err)
	}
	if _, err := line.Registers(t.Context(), Query{Unit: "7", Table: Holding, First: 600, Count: 1}); err == nil || !strings.Contains(err.Error(), "exception '2'") {
		t.Errorf("a register that is not there: %v", err)
	}
}

func TestPymodbusSerial(t *testing.T) {
	python := findPymodbus(t)
	t.Parallel()
	socat, err := exec.LookPath("socat")
	if err != nil {
		t.Skip("socat is not installed")
	}
	ours, theirs := filepath.Join(t.TempDir(), "ours"), filepath.Join(t.TempDir(), "theirs")
	run(t, socat, "pty,raw,echo=0,link="+ours, "pty,raw,echo=0,link="+theirs)
	deadline := time.Now().Add(10 * time.Second)
	for {
		if _, err := os.Stat(theirs); err == nil {
			if _, err := os.Stat(ours); err == nil {
				break
			}
		}
		if time.Now().After(deadline) {
			t.Fatal("socat makes no serial line")
		}
		<-time.After(10 * time.Millisecond)
	}
	run(t, python, "-c", pymodbusRTU, "serial", theirs)
	peerReadsAndWrites(t, "serial://"+ours+"?baud=19200")
}

func TestPymodbusRTUOverTCP(t *testing.T) {
	python := findPymodbus(t)
	t.Parallel()
	port := freePort(t)
	run(t, python, "-c", pymodbusRTU, "tcp", fmt.Sprint(port))
	deadline := time.Now().Add(10 * time.Second)
	target, err := link.Parse(fmt.Sprintf("tcp://127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	for {
		conn, err := link.Dial(t.Context(), target, link.Options{})
		if err == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("pymodbus does not listen: %v", err)
		}
		<-time.After(20 * time.Millisecond)
	}
	peerReadsAndWrites(t, fmt.Sprintf("rtu+tcp://127.0.0.1:%d", port))
}

// run starts a peer and ends it with the test.
func run(t *testing.T, name string, args ...string) {
	t.Helper()
	peer := exec.Command(name, args...)
	var said strings.Builder
	peer.Stderr = &said
	if err := peer.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		peer.Process.Kill()
		peer.Wait()
		if t.Failed() {
			t.Logf("%s said: %s", filepath.Base(name), said.String())
		}
	})
}
