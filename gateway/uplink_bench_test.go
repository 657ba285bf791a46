package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// cpuSeconds is what a process has used of the processors.
func cpuSeconds(b testing.TB, g *gatewayProcess) float64 {
	b.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(g.cmd.Process.Pid), "stat"))
	if err != nil {
		b.Skip(err)
	}
	words := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, _ := strconv.ParseFloat(words[11], 64)
	system, _ := strconv.ParseFloat(words[12], 64)
	return (user + system) / 100
}

// writeReadings brings n readings of 50 stations in, one minute apart, and returns the bytes of
// their lines.
func (g *gatewayProcess) writeReadings(b testing.TB, n int) (size int) {
	b.Helper()
	begin := time.Now().Add(-time.Duration(n/50) * time.Minute)
	var lines bytes.Buffer
	for i := range n {
		at := begin.Add(time.Duration(i/50)*time.Minute + time.Duration(i*7919%1000)*time.Millisecond)
		fmt.Fprintf(&lines, "river,device=hue-%02d level_m=%.2f,flow_m3s=%.1f,battery_v=%.2f %d\n", i%50, 1+float64(i*31%400)/100, 20+float64(i*17%900)/10, 12+float64(i*13%100)/100, at.UnixNano())
		if (i+1)%5000 == 0 || i+1 == n {
			size += lines.Len()
			response, err := http.Post("http://"+g.ports.influx+"/write?db=haidang", "text/plain", &lines)
			if err != nil {
				b.Fatal(err)
			}
			response.Body.Close()
			if response.StatusCode != http.StatusNoContent {
				b.Fatal(response.Status)
			}
			lines.Reset()
		}
	}
	return size
}

// backlogOf is how many readings wait.
func backlogOf() int {
	if n, err := strconv.Atoi(os.Getenv("HAIDANG_UPLINK_READINGS")); err == nil {
		return n
	}
	return 100_000
}

// BenchmarkUplinkCatchUp pushes what has waited in the field (HAIDANG_UPLINK_READINGS,
// 100,000) to a centre on the same machine: two processes, each with its rules and its
// store.
func BenchmarkUplinkCatchUp(b *testing.B) {
	n := backlogOf()
	p := newPushedPair(b, "")
	p.field.start()
	raw := 0
	for b.Loop() {
		raw += p.field.writeReadings(b, n)
		eventually(b, "the field is idle", 10*time.Minute, func() bool {
			return p.field.metric("haidang_spool_follower_lag_frames", `follower="influx"`)+p.field.metric("haidang_spool_follower_lag_frames", `follower="rules"`) <= 1
		})
		began := p.field.metric("haidang_uplink_sent_records_total", `log="readings"`)
		p.centre.start()
		centre, field, begin := cpuSeconds(b, p.centre), cpuSeconds(b, p.field), time.Now()
		eventually(b, "pushed", 10*time.Minute, func() bool {
			<-time.After(200 * time.Millisecond) // being asked costs the field as well
			return p.field.metric("haidang_uplink_sent_records_total", `log="readings"`) >= began+float64(n)
		})
		took := time.Since(begin).Seconds()
		b.ReportMetric(float64(n)/took, "readings/s")
		b.ReportMetric((cpuSeconds(b, p.field)-field)/float64(n)*1e6, "field-cpu-s/M")
		b.ReportMetric((cpuSeconds(b, p.centre)-centre)/float64(n)*1e6, "centre-cpu-s/M")
		p.centre.stop()
	}
	sent, lines := p.field.metric("haidang_uplink_sent_bytes_total", `log="readings"`), p.field.metric("haidang_uplink_line_bytes_total")
	records := p.field.metric("haidang_uplink_sent_records_total", `log="readings"`)
	b.ReportMetric(sent/records, "B/reading")
	b.ReportMetric(lines/sent, "ratio")
	b.ReportMetric(float64(raw)/records, "raw-B/reading")
}

// BenchmarkUplinkRoles pushes the same backlog to a centre with roles: two machines, of
// which one only hands on, one NATS server, and an InfluxDB that takes all and keeps
// nothing, on this machine.
func BenchmarkUplinkRoles(b *testing.B) {
	for _, partitions := range []int{1, 4} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) { benchmarkRoles(b, partitions, backlogOf()) })
	}
}

func benchmarkRoles(b *testing.B, partitions, n int) {
	_, url := startNATS(b, 1)
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	b.Cleanup(sink.Close)
	machine := func(roles string) *gatewayProcess {
		g := prepare(b, fmt.Sprintf("spool: {url: %q, max_bytes: 2GiB, partitions: %d, replicas: 1}\nuplink: {accept: true}\n", url, partitions))
		g.elsewhere(sink.URL)
		g.called("centre")
		g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"), "--roles", roles)
		return g
	}
	hall := machine("console")
	field := prepare(b, fmt.Sprintf("uplink: {url: \"http://%s\"}\n", hall.ports.console))
	field.called("kim-long-box")
	field.start()
	desk := machine("ingest,rules,store,ioc")
	for b.Loop() {
		desk.stop()
		field.writeReadings(b, n)
		eventually(b, "the field is idle", 10*time.Minute, func() bool {
			return field.metric("haidang_spool_follower_lag_frames", `follower="influx"`)+field.metric("haidang_spool_follower_lag_frames", `follower="rules"`) <= 1
		})
		began := sent(field)
		desk.launch("run", "--config", filepath.Join(desk.dir, "gateway.yaml"), "--roles", "ingest,rules,store,ioc")
		eventually(b, "it is pushed", time.Minute, func() bool { return sent(field) > began })
		from, centre, begin := sent(field), cpuSeconds(b, desk), time.Now()
		eventually(b, "pushed", 10*time.Minute, func() bool {
			<-time.After(200 * time.Millisecond) // being asked costs the field as well
			return sent(field) >= began+n
		})
		took := time.Since(begin).Seconds()
		pushed := float64(began + n - from)
		b.ReportMetric(pushed/took, "readings/s")
		b.ReportMetric((cpuSeconds(b, desk)-centre)/pushed*1e6, "centre-cpu-s/M")
	}
	for _, g := range []*gatewayProcess{desk, hall, field} {
		g.stop()
	}
}
