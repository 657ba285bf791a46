package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An openPage does what the page Now does in a browser: it follows the events, reads
// the list after each and at intervals, the map every five seconds and the trends
// every minute.
type openPage struct {
	base   string
	client *http.Client
	events atomic.Int64
	bytes  *atomic.Int64
	failed *atomic.Int64
}

func (p *openPage) get(ctx context.Context, path string) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		p.failed.Add(1)
		return
	}
	request.Header.Set("Accept-Encoding", "gzip") // as a browser; what comes is not unpacked here
	request.Header.Set("Haidang-Page", "quiet")
	response, err := p.client.Do(request)
	if err != nil {
		if ctx.Err() == nil {
			p.failed.Add(1)
		}
		return
	}
	defer response.Body.Close()
	n, _ := io.Copy(io.Discard, response.Body)
	p.bytes.Add(n)
	if response.StatusCode != http.StatusOK {
		p.failed.Add(1)
	}
}

// follow reads the stream of events and says when the list is to be read again.
func (p *openPage) follow(ctx context.Context, changed chan<- struct{}) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/api/v1/events", nil)
	if err != nil {
		p.failed.Add(1)
		return
	}
	response, err := p.client.Do(request)
	if err != nil {
		p.failed.Add(1)
		return
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if lines.Text() != "event: warning" {
			continue
		}
		p.events.Add(1)
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (p *openPage) run(ctx context.Context, n int) {
	changed := make(chan struct{}, 1)
	var following sync.WaitGroup
	defer following.Wait()
	following.Go(func() { p.follow(ctx, changed) })
	ticker := func(every time.Duration) *time.Ticker { return time.NewTicker(every) }
	list, mapped, trends := ticker(15*time.Second), ticker(5*time.Second), ticker(time.Minute)
	defer list.Stop()
	defer mapped.Stop()
	defer trends.Stop()
	if !wait(ctx, time.Duration(n)*10*time.Millisecond) { // people do not open them at one instant
		return
	}
	for _, path := range []string{"/", "/api/v1/map", "/api/v1/trends"} {
		p.get(ctx, path)
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			if !wait(ctx, 100*time.Millisecond) {
				return
			}
			p.get(ctx, "/")
		case <-list.C:
			p.get(ctx, "/")
		case <-mapped.C:
			p.get(ctx, "/api/v1/map")
		case <-trends.C:
			p.get(ctx, "/api/v1/trends")
		}
	}
}

// cpuTime is the time that a process has computed (proc(5): fields 14 and 15 of
// stat, in ticks of 10 ms).
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Skipf("the time of a process is not known here: %v", err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// TestE2EOpenPages: two hundred pages that are open cost less than a tenth of a core,
// with 2,000 boats, 500 stations and a warning that changes every two seconds.
func TestE2EOpenPages(t *testing.T) {
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("half a minute of load: run with HAIDANG_E2E=1, as make e2e does")
	}
	const pages, window = 200, 8 * time.Second
	g := prepare(t, "")
	g.start()
	base := "http://" + g.ports.console
	write := func(lines string) {
		response, err := http.Post("http://"+g.ports.influx+"/write?db=haidang", "text/plain", strings.NewReader(lines))
		if err != nil {
			t.Error(err)
			return
		}
		response.Body.Close()
	}
	var field strings.Builder
	for i := range 2000 {
		fmt.Fprintf(&field, "position,device=mmsi-%d lat=%v,lon=%v,course_deg=%d,speed_kn=%d\n", 575000000+i, 15+float64(i%50)/20, 108.6+float64(i/50)/15, i*37%360, i%12)
	}
	for i := range 500 {
		fmt.Fprintf(&field, "river,device=station-%d level_m=%v\n", i, float64(i%90)/100)
	}
	write(field.String())
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	running.Go(func() { // kim-long rises and falls
		for i := 0; wait(ctx, 2*time.Second); i++ {
			write(fmt.Sprintf("river,device=kim-long level_m=%v\n", []float64{1.2, 2.2, 3.7, 2.2}[i%4]))
		}
	})
	cost := func() time.Duration {
		before := cpuTime(t, g.cmd.Process.Pid)
		wait(ctx, window)
		return cpuTime(t, g.cmd.Process.Pid) - before
	}
	eventually(t, "the field is there", 20*time.Second, func() bool { _, body := g.try("/api/v1/map"); return strings.Count(body, `"id"`) >= 2000 })
	alone := cost()

	var bytes, failed atomic.Int64
	all := make([]*openPage, pages)
	for i := range all {
		transport := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 4}
		defer transport.CloseIdleConnections()
		all[i] = &openPage{base: base, client: &http.Client{Transport: transport}, bytes: &bytes, failed: &failed}
		running.Go(func() { all[i].run(ctx, i) })
	}
	eventually(t, "every page follows", 20*time.Second, func() bool {
		for _, p := range all {
			if p.events.Load() == 0 {
				return false
			}
		}
		return true
	})
	opened := bytes.Swap(0)
	with := cost()
	events := int64(0)
	for _, p := range all {
		events += p.events.Load()
	}
	share := func(d time.Duration) float64 { return 100 * d.Seconds() / window.Seconds() }
	t.Logf("%.1f %% of a core with %d pages, %.1f %% without: %.1f %% for the pages; %d events, %.1f MB in %s after %.1f MB to open them",
		share(with), pages, share(alone), share(with-alone), events, float64(bytes.Load())/1e6, window, float64(opened)/1e6)
	if n := failed.Load(); n > 0 {
		t.Errorf("%d requests failed", n)
	}
	if share(with-alone) >= 10 && !racing {
		t.Errorf("%d open pages cost %.1f %% of a core; expected less than 10", pages, share(with-alone))
	}
}
