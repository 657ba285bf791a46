package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// A rawPublisher speaks just enough MQTT 3.1.1 to publish with QoS 1 as fast as
// acknowledgements come.
type rawPublisher struct {
	conn net.Conn
	in   *bufio.Reader
}

func dialPublisher(address, id string) (*rawPublisher, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	p := &rawPublisher{conn, bufio.NewReader(conn)}
	body := append([]byte("\x00\x04MQTT\x04\x02\x00\x3c"), byte(len(id)>>8), byte(len(id)))
	body = append(body, id...)
	if _, err := conn.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(p.in, make([]byte, 4))
	return p, err
}

// publish sends n messages, window at most unacknowledged, and returns when all
// are acknowledged.
func (p *rawPublisher) publish(topic string, n, window int, payload func(i int) string) error {
	slots := make(chan struct{}, window)
	failed := make(chan error, 1)
	go func() {
		for range n {
			if _, err := io.ReadFull(p.in, make([]byte, 4)); err != nil {
				failed <- err
				return
			}
			<-slots
		}
		failed <- nil
	}()
	var packet []byte
	for i := range n {
		slots <- struct{}{}
		text := payload(i)
		size := 2 + len(topic) + 2 + len(text)
		packet = binary.AppendUvarint(append(packet[:0], 0x32), uint64(size))
		packet = binary.BigEndian.AppendUint16(packet, uint16(len(topic)))
		packet = append(packet, topic...)
		packet = binary.BigEndian.AppendUint16(packet, uint16(i%65535)+1)
		packet = append(packet, text...)
		if _, err := p.conn.Write(packet); err != nil {
			return err
		}
	}
	return <-failed
}

// twentyRules are twenty rules that look at every reading and never hold.
func twentyRules() string {
	var b strings.Builder
	b.WriteString("rules:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  - {name: r%d, on: river, when: level_m > %d && level_m < %d}\n", i, 50+i, 60+i)
	}
	return b.String()
}

// BenchmarkWholePath loads a real process over MQTT (50 publishers, 20 messages
// in flight each, QoS 1, JSON, 20 rules on each reading, the embedded InfluxDB)
// and prints acknowledged messages a second, readings a second until all are
// evaluated and stored, and its memory at the peak.
func BenchmarkWholePath(b *testing.B) {
	const publishers, window = 50, 20
	for b.Loop() {
		g := prepare(b, "rules: [rules.yaml]\ndevices: devices.yaml\n")
		g.write("rules.yaml", twentyRules())
		g.write("devices.yaml", "devices: []\n")
		g.start()
		each := 4000
		began := time.Now()
		var loading sync.WaitGroup
		for i := range publishers {
			loading.Go(func() {
				p, err := dialPublisher(g.ports.mqtt, fmt.Sprint("p", i))
				if err == nil {
					defer p.conn.Close()
					topic := fmt.Sprintf("telemetry/station-%d/river", i)
					err = p.publish(topic, each, window, func(n int) string { return fmt.Sprintf(`{"level_m":%d.%02d}`, n%4, n%100) })
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		loading.Wait()
		acked := time.Since(began)
		total := float64(publishers * each)
		for g.metric("haidang_spool_follower_lag_frames", `follower="influx"`) > 0 {
			<-time.After(20 * time.Millisecond)
		}
		b.ReportMetric(total/acked.Seconds(), "acked/s")
		b.ReportMetric(total/time.Since(began).Seconds(), "stored/s")
		b.ReportMetric(g.peakMiB(), "peak-MiB")
		b.ReportMetric(g.metric("process_cpu_seconds_total")/total*1e6, "cpu-s/million")
		g.stop()
	}
}

// BenchmarkIdle prints how long a gateway with everything embedded takes until
// it is ready, and its memory then.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		g := prepare(b, "")
		began := time.Now()
		g.start()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ready-ms")
		<-time.After(2 * time.Second)
		b.ReportMetric(g.statusMiB("VmRSS"), "idle-MiB")
		g.kill()
	}
}

func (g *gatewayProcess) peakMiB() float64 { return g.statusMiB("VmHWM") }

// statusMiB reads a size of /proc/PID/status.
func (g *gatewayProcess) statusMiB(key string) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, key+":") {
			var kib float64
			fmt.Sscan(strings.TrimPrefix(line, key+":"), &kib)
			return kib / 1024
		}
	}
	return 0
}
