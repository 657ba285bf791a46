package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A measured broker is a process that speaks MQTT: this program with
// every acknowledgement on disk, or mosquitto as Debian configures it, which
// keeps everything in memory.
type measured struct {
	name, address string
	pid           int
}

// cpu is the processor time that the process has used.
func (m measured) cpu(t testing.TB) time.Duration {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.pid))
	if err != nil {
		t.Fatal(err)
	}
	// Fields 14 and 15 (proc(5)), counted behind the name, which may have spaces.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	total := 0
	for _, field := range fields[11:13] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		total += ticks
	}
	return time.Duration(total) * 10 * time.Millisecond // USER_HZ is 100
}

// A load is so many publishers that send messages with a QoS, to subscribers that
// each get all of them.
type load struct {
	qos                     byte
	publishers, subscribers int
	messages                int // in all
}

func (l load) String() string {
	return fmt.Sprintf("QoS %d, %3d publishers, %3d subscribers", l.qos, l.publishers, l.subscribers)
}

// TestBesideMosquitto prints a table of both brokers under the same loads, in
// turns. It fails when a message does not arrive and is not counted: a subscriber
// has so much room and no more (broker.limits).
func TestBesideMosquitto(t *testing.T) {
	if os.Getenv("HAIDANG_TRIALS") == "" {
		t.Skip("HAIDANG_TRIALS is not set: the comparison takes a minute")
	}
	command, err := exec.LookPath("mosquitto")
	if err != nil {
		command = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(command); err != nil {
		t.Skip("mosquitto is not installed")
	}
	g := prepare(t, "rules: []\nmodbus: []\nserial: []\n")
	g.start()
	brokers := []measured{{"haidang", g.ports.mqtt, g.cmd.Process.Pid}, startMosquitto(t, command)}
	t.Logf("%s, %d cores; the publishers and subscribers are a third process on the same cores", runtime.Version(), runtime.NumCPU())
	t.Logf("%-38s %-10s %12s %14s %12s %8s", "", "", "messages/s", "deliveries/s", "CPU us/msg", "lost")
	for _, l := range []load{
		{0, 1, 0, 100_000}, {0, 50, 0, 100_000}, {0, 500, 0, 100_000},
		{1, 1, 0, 60_000}, {1, 50, 0, 100_000}, {1, 500, 0, 100_000},
		{0, 50, 1, 60_000}, {1, 50, 1, 60_000}, {0, 1, 100, 2_000}, {1, 1, 100, 2_000},
	} {
		for turn := range 2 {
			for _, b := range brokers {
				before := g.droppedDeliveries()
				messages, deliveries, cpu, lost := l.run(t, b)
				t.Logf("%-38s %-10s %12.0f %14.0f %12.2f %8d", l, b.name, messages, deliveries, cpu, lost)
				if counted := g.droppedDeliveries() - before; b.name == "haidang" && counted != lost {
					t.Errorf("%s, turn %d: %d deliveries did not arrive and %d are counted", l, turn, lost, counted)
				}
			}
		}
	}
}

// droppedDeliveries reads how many messages did not go to a subscriber.
func (g *gatewayProcess) droppedDeliveries() int64 {
	g.t.Helper()
	total := 0.0
	_, text := g.try("/metrics")
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch name {
		case `haidang_broker_drops_total{reason="slow_client"}`, `haidang_broker_drops_total{reason="queues_full"}`:
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				g.t.Fatal(err)
			}
			total += n
			if n > 0 && os.Getenv("HAIDANG_TRIALS") == "drops" {
				g.t.Log(line)
			}
		}
	}
	return int64(total)
}

// startMosquitto starts one without bounds that would make it drop messages.
func startMosquitto(t *testing.T, command string) measured {
	address := freePorts(t, 1)[0]
	_, port, _ := net.SplitHostPort(address)
	file := filepath.Join(t.TempDir(), "mosquitto.conf")
	text := "listener " + port + " 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(command, "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, "mosquitto listens", 10*time.Second, func() bool {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	return measured{"mosquitto", address, cmd.Process.Pid}
}

// run puts the load on a broker: messages and deliveries per second until the
// last one has arrived, processor time of the broker for each message, and what
// has not arrived when nothing came for two seconds.
func (l load) run(t *testing.T, b measured) (messages, deliveries, cpu float64, lost int64) {
	var got atomic.Int64
	var ends []net.Conn
	var reading sync.WaitGroup
	for i := range l.subscribers {
		conn, err := l.subscribe(b.address, fmt.Sprintf("sub-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, conn)
		reading.Go(func() { l.receive(conn, &got) })
	}
	each := l.messages / l.publishers
	all := int64(each * l.publishers)
	before, start := b.cpu(t), time.Now()
	var sending sync.WaitGroup
	for i := range l.publishers {
		sending.Go(func() {
			if err := l.publish(b.address, i, each); err != nil {
				t.Errorf("%s, %s: %v", b.name, l, err)
			}
		})
	}
	sending.Wait()
	took := time.Since(start)
	want := all * int64(l.subscribers)
	last, since := int64(-1), time.Now()
	for tick := time.NewTicker(time.Millisecond); got.Load() < want && time.Since(since) < 2*time.Second; <-tick.C {
		if now := got.Load(); now != last {
			last, since = now, time.Now()
			took = time.Since(start)
		}
	}
	used := b.cpu(t) - before
	for _, conn := range ends {
		conn.Close()
	}
	reading.Wait()
	return float64(all) / took.Seconds(), float64(got.Load()) / took.Seconds(), float64(used.Microseconds()) / float64(all), want - got.Load()
}

// publish sends messages on the topic of publisher i, as a station that measures
// would, a hundred under way with QoS 1, and waits until the broker has read all.
func (l load) publish(address string, i, messages int) error {
	p, err := dialPublisher(address, fmt.Sprintf("pub-%d", i))
	if err != nil {
		return err
	}
	defer p.conn.Close()
	topic := fmt.Sprintf("telemetry/station-%d/river", i)
	payload := func(n int) string {
		return fmt.Sprintf(`{"time":%d,"level_m":3.62,"rain_1h_mm":12.4,"battery_v":12.6}`, time.Now().UnixMicro())
	}
	if l.qos == 1 {
		return p.publish(topic, messages, 100, payload)
	}
	out := bufio.NewWriterSize(p.conn, 4096)
	for n := range messages {
		text := payload(n)
		header := binary.AppendUvarint([]byte{0x30}, uint64(2+len(topic)+len(text)))
		header = binary.BigEndian.AppendUint16(header, uint16(len(topic)))
		_, _ = out.Write(append(header, topic...)) // Flush tells
		_, _ = out.WriteString(text)
	}
	_, _ = out.Write([]byte{0xc0, 0})
	if err := out.Flush(); err != nil {
		return err
	}
	_, err = io.ReadFull(p.in, make([]byte, 2)) // PINGRESP: all before it was read
	return err
}

func (l load) subscribe(address, id string) (net.Conn, error) {
	p, err := dialPublisher(address, id)
	if err != nil {
		return nil, err
	}
	const filter = "telemetry/#"
	packet := append([]byte{0x82, byte(2 + 2 + len(filter) + 1), 0, 1, 0, byte(len(filter))}, filter...)
	if _, err := p.conn.Write(append(packet, l.qos)); err != nil {
		return nil, err
	}
	answer := make([]byte, 5)
	if _, err := io.ReadFull(p.in, answer); err != nil {
		return nil, err
	}
	if answer[4] > 2 {
		return nil, errors.New("the subscription is refused")
	}
	return p.conn, nil
}

// receive counts deliveries and acknowledges them, until the connection ends.
func (l load) receive(conn net.Conn, got *atomic.Int64) {
	in := bufio.NewReaderSize(conn, 64<<10)
	var acks []byte
	for {
		first, err := in.ReadByte()
		if err != nil {
			return
		}
		size, err := binary.ReadUvarint(in)
		if err != nil {
			return
		}
		if first>>4 != 3 {
			if _, err := in.Discard(int(size)); err != nil {
				return
			}
			continue
		}
		var length [2]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return
		}
		rest := int(size) - 2
		if first&6 > 0 {
			topic := int(binary.BigEndian.Uint16(length[:]))
			if _, err := in.Discard(topic); err != nil {
				return
			}
			var id [2]byte
			if _, err := io.ReadFull(in, id[:]); err != nil {
				return
			}
			acks = append(acks, 0x40, 2, id[0], id[1])
			rest -= topic + 2
		}
		if _, err := in.Discard(rest); err != nil {
			return
		}
		got.Add(1)
		if in.Buffered() == 0 && len(acks) > 0 {
			if _, err := conn.Write(acks); err != nil {
				return
			}
			acks = acks[:0]
		}
	}
}
