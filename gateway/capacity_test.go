package main

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manyDevices is a devices.yaml of so many stations, two at each site.
func manyDevices(n int) string {
	var b strings.Builder
	b.WriteString("devices:\n")
	for i := range n {
		fmt.Fprintf(&b, "  - {id: station-%06d, name: T%d, site: site-%05d, kinds: [%s], interval: 10m, lat: %g, lon: %g, facts: {alarm1_m: 2, alarm2_m: 3, alarm3_m: 4.5}}\n",
			i, i, i/2, []string{"river", "rain", "air"}[i%3], 16+float64(i%1000)/1000, 107+float64(i/1000)/1000)
	}
	return b.String()
}

// ownTime is the processor time of this process so far: what others do on the machine
// is not in it.
func ownTime(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// TestCheckIsLinear: four times the devices take less than eight times the time to
// check. It was sixteen times.
func TestCheckIsLinear(t *testing.T) {
	check := func(devices int) (least time.Duration) {
		dir := inFolder(t, map[string]string{"gateway.yaml": "devices: devices.yaml\n", "devices.yaml": manyDevices(devices)})
		for range 2 {
			begin := ownTime(t)
			code, stdout, stderr := command(t, "check", "--config", filepath.Join(dir, "gateway.yaml"))
			took := ownTime(t) - begin
			if want := fmt.Sprintf(" %d devices", devices); code != exitWell || !strings.Contains(stdout, want) || stderr != "" {
				t.Fatalf("%d %s%s", code, stdout, stderr)
			}
			if least == 0 || took < least {
				least = took
			}
		}
		return least
	}
	few, many := check(3_000), check(12_000)
	if many > 8*few {
		t.Errorf("3,000 devices take %v, 12,000 take %v", few, many)
	}
}

// BenchmarkManyDevices checks and starts a gateway with so many registered devices: the
// first time, and from what was kept.
func BenchmarkManyDevices(b *testing.B) {
	for _, devices := range []int{10_000, 100_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			for b.Loop() {
				g := prepare(b, "devices: devices.yaml")
				g.write("devices.yaml", manyDevices(devices))
				begin := time.Now()
				g.launch("check", "--config", filepath.Join(g.dir, "gateway.yaml"))
				<-g.ended
				b.ReportMetric(time.Since(begin).Seconds(), "check-s")
				b.ReportMetric((g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()).Seconds(), "check-cpu-s")
				for _, start := range []string{"first", "again"} {
					begin := time.Now()
					g.launch("run", "--config", filepath.Join(g.dir, "gateway.yaml"))
					for status := 0; status != http.StatusOK; status, _ = g.try("/readyz") {
						if time.Since(begin) > 5*time.Minute {
							b.Fatalf("not ready\n%s", g.output)
						}
						<-time.After(20 * time.Millisecond)
					}
					b.ReportMetric(time.Since(begin).Seconds(), start+"-s")
					b.ReportMetric(g.peakMiB(), start+"-MiB")
					if g.stop() != exitWell {
						b.Fatalf("%v\n%s", g.err, g.output)
					}
					b.ReportMetric((g.cmd.ProcessState.UserTime() + g.cmd.ProcessState.SystemTime()).Seconds(), start+"-cpu-s")
				}
			}
		})
	}
}
