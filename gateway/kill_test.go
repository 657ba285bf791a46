package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// A publisher sends numbered readings that carry their time, some at once, and
// remembers which were acknowledged.
type publisher struct {
	device string
	start  time.Time

	mu    sync.Mutex
	next  int
	acked map[int]bool
}

// at is the time of reading n: no two readings share one.
func (l *publisher) at(n int) time.Time { return l.start.Add(time.Duration(n) * time.Millisecond) }

// publish sends until stop is closed or the connection ends.
func (l *publisher) publish(c paho.Client, stop <-chan struct{}) {
	window := make(chan struct{}, 50)
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for {
		select {
		case <-stop:
			return
		case window <- struct{}{}:
		}
		if !c.IsConnectionOpen() {
			return
		}
		l.mu.Lock()
		n := l.next
		l.next++
		l.mu.Unlock()
		token := c.Publish("telemetry/"+l.device+"/count", 1, false, fmt.Sprintf(`{"n":%d,"time":%d}`, n, l.at(n).UnixNano()))
		waiting.Go(func() {
			defer func() { <-window }()
			if token.WaitTimeout(10*time.Second) && token.Error() == nil {
				l.mu.Lock()
				l.acked[n] = true
				l.mu.Unlock()
			}
		})
	}
}

// TestKillLosesNothingAcknowledged kills the process with SIGKILL at random
// moments under load. Every reading that was acknowledged is in InfluxDB, each
// exactly once.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	const cycles, stations = 3, 4
	g := prepare(t, "")
	publishers := make([]*publisher, stations)
	for i := range publishers {
		publishers[i] = &publisher{device: fmt.Sprint("load-", i), start: time.Now().Add(-time.Hour), acked: map[int]bool{}}
	}
	for cycle := range cycles {
		g.start()
		stop := make(chan struct{})
		var publishing sync.WaitGroup
		for i, l := range publishers {
			c := g.client(fmt.Sprint("c", cycle, "-", i))
			publishing.Go(func() { l.publish(c, stop) })
		}
		<-time.After(200*time.Millisecond + rand.N(500*time.Millisecond))
		g.kill()
		close(stop)
		publishing.Wait()
	}
	g.start()
	total := 0
	for _, l := range publishers {
		total += len(l.acked)
		l.verify(t, g)
	}
	if total < 500 {
		t.Errorf("only %d readings were acknowledged in %d cycles: the test saw no load", total, cycles)
	}
	t.Logf("%d acknowledged over %d kills, none lost, none doubled", total, cycles)
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output)
	}
}

func (l *publisher) verify(t *testing.T, g *gatewayProcess) {
	t.Helper()
	var rows [][]any
	missing := func() int {
		rows = g.rows(fmt.Sprintf("SELECT n FROM count WHERE device = '%s'", l.device))
		stored := map[string]bool{}
		for _, row := range rows {
			stored[fmt.Sprint(row[1])] = true
		}
		n := 0
		for k := range l.acked {
			if !stored[fmt.Sprint(k)] {
				n++
			}
		}
		return n
	}
	eventually(t, fmt.Sprintf("all %d acknowledged readings of %s are in InfluxDB", len(l.acked), l.device), 20*time.Second, func() bool { return missing() == 0 })
	seen := map[string]bool{}
	for _, row := range rows {
		n := fmt.Sprint(row[1])
		if seen[n] {
			t.Errorf("%s: reading %s is there twice", l.device, n)
		}
		seen[n] = true
		number, err := row[1].(json.Number).Int64()
		if err != nil || fmt.Sprint(row[0]) != fmt.Sprint(l.at(int(number)).UnixNano()) {
			t.Errorf("%s: reading %v is at %v", l.device, row[1], row[0])
		}
	}
}
