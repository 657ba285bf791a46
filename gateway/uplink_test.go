package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A lineProxy is the line between a field and its centre. It can be a hole: what is
// sent stays where it is, and new connections get no answer.
type lineProxy struct {
	address string
	target  string

	mu    sync.Mutex
	hole  chan struct{} // closed: bytes pass
	conns map[net.Conn]bool
}

func newLineProxy(t testing.TB, target string) *lineProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lineProxy{address: listener.Addr().String(), target: target, hole: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(p.hole)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() { listener.Close(); p.open(true); p.cut(); running.Wait() })
	return p
}

func (p *lineProxy) serve(conn net.Conn) {
	defer conn.Close()
	p.pass()
	p.mu.Lock()
	to := p.target
	p.mu.Unlock()
	target, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer target.Close()
	p.mu.Lock()
	p.conns[conn], p.conns[target] = true, true
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.copy(target, conn) })
	both.Go(func() { p.copy(conn, target) })
	both.Wait()
	p.mu.Lock()
	delete(p.conns, conn)
	delete(p.conns, target)
	p.mu.Unlock()
}

func (p *lineProxy) pass() {
	p.mu.Lock()
	hole := p.hole
	p.mu.Unlock()
	<-hole
}

func (p *lineProxy) copy(to, from net.Conn) {
	buffer := make([]byte, 2048)
	for {
		n, err := from.Read(buffer)
		p.pass()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	to.Close()
	from.Close()
}

// lead makes new connections lead elsewhere.
func (p *lineProxy) lead(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// open lets bytes pass, or not.
func (p *lineProxy) open(pass bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.hole:
		if !pass {
			p.hole = make(chan struct{})
		}
	default:
		if pass {
			close(p.hole)
		}
	}
}

// cut ends the connections there are.
func (p *lineProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// holds keeps a log from being emptied: its follower has nowhere to go.
const holds = "bridges: [{name: hold, connect: \"mqtt://127.0.0.1:1\", forward: {topic: \"x/{device}\"}}]\n"

// called gives a prepared gateway another name.
func (g *gatewayProcess) called(name string) {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.write("gateway.yaml", strings.Replace(string(text), "gateway: test-box", "gateway: "+name, 1))
}

// A pushed pair is a field and its centre, with the line between them.
type pushedPair struct {
	field, centre *gatewayProcess
	line          *lineProxy
}

func newPushedPair(t testing.TB, more string) *pushedPair {
	t.Helper()
	p := &pushedPair{centre: prepare(t, holds+"uplink: {accept: true}\n")}
	p.centre.called("centre")
	p.line = newLineProxy(t, p.centre.ports.console)
	p.field = prepare(t, holds+fmt.Sprintf("uplink: {url: \"http://%s\", heartbeat: 1s%s}\n", p.line.address, more))
	p.field.called("kim-long-box")
	return p
}

// lag is how many frames the centre does not have.
func (p *pushedPair) lag(log string) float64 {
	return p.field.metric("haidang_spool_follower_lag_frames", `log="`+log+`"`, `follower="uplink"`)
}

// level publishes one reading with a time of its own and a number, until it is
// acknowledged.
func level(g *gatewayProcess, client *paho.Client, device string, n int, value float64) {
	payload := fmt.Sprintf(`{"level_m":%v,"flow_m3s":%d,"time":%d}`, value, n, time.Now().UnixMilli())
	for {
		if *client == nil || !(*client).IsConnected() {
			options := paho.NewClientOptions().AddBroker("tcp://" + g.ports.mqtt).SetClientID("station-" + device).SetAutoReconnect(false).SetConnectTimeout(2 * time.Second)
			c := paho.NewClient(options)
			if token := c.Connect(); !token.WaitTimeout(3*time.Second) || token.Error() != nil {
				<-time.After(50 * time.Millisecond)
				continue
			}
			*client = c
		}
		if token := (*client).Publish("telemetry/"+device+"/river", 1, false, payload); token.WaitTimeout(3*time.Second) && token.Error() == nil {
			return
		}
		(*client).Disconnect(0)
	}
}

// rivers are the river readings of a stopped gateway's log, in order.
func rivers(t testing.TB, g *gatewayProcess) (out []string, sources map[string]int) {
	t.Helper()
	s, err := spool.Open(t.Context(), spool.Options{Dir: filepath.Join(g.dir, "data", "spool"), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sources = map[string]int{}
	err = s.Readings().Replay(t.Context(), func(r telemetry.Reading) {
		if r.Kind != "river" {
			return
		}
		n, _ := r.Number("flow_m3s")
		sources[r.Source]++
		out = append(out, fmt.Sprintf("%s %.0f %d %s", r.Device, n, r.Time.UnixNano(), r.Quality))
	})
	if err != nil {
		t.Fatal(err)
	}
	return out, sources
}

// TestUplink pushes through a line that comes and goes while both sides are killed at
// random, and compares the logs: the centre has each reading once and in order, and each
// warning as it stands in the field.
func TestUplink(t *testing.T) {
	t.Parallel()
	lasting, seed := 20*time.Second, rand.Uint64()
	if text := os.Getenv("HAIDANG_UPLINK_FOR"); text != "" {
		lasting, _ = time.ParseDuration(text)
	}
	t.Logf("seed %d, %s", seed, lasting)
	chance := rand.New(rand.NewPCG(seed, 1))
	p := newPushedPair(t, ", max_rate: 512KiB/s")
	p.centre.start()
	p.field.start()

	ctx, enough := context.WithTimeout(t.Context(), lasting)
	defer enough()
	var stations sync.WaitGroup
	for i, device := range []string{"kim-long", "phu-oc", "hue-3"} {
		stations.Go(func() {
			var client paho.Client
			for n := 0; ctx.Err() == nil; n++ {
				value := 0.5
				if n/40%2 == 1 {
					value = 9
				}
				level(p.field, &client, device, n*3+i, value)
			}
			if client != nil {
				client.Disconnect(0)
			}
		})
	}
	kills := map[string]int{}
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-time.After(time.Duration(500+chance.IntN(2500)) * time.Millisecond):
		}
		switch what := chance.IntN(4); what {
		case 0:
			kills["centre"]++
			p.centre.kill()
			p.centre.start()
		case 1:
			kills["field"]++
			p.field.kill()
			p.field.start()
		case 2:
			kills["hole"]++
			p.line.open(false)
			<-time.After(time.Duration(chance.IntN(3000)) * time.Millisecond)
			p.line.open(true)
		case 3:
			kills["cut"]++
			p.line.cut()
		}
	}
	stations.Wait()
	eventually(t, "the centre has everything", 30*time.Second, func() bool { return p.lag("readings") == 0 && p.lag("warnings") == 0 })
	p.sameWarnings(t)
	p.field.stop()
	p.centre.stop()
	field, _ := rivers(t, p.field)
	centre, sources := rivers(t, p.centre)
	t.Logf("%v; %d readings in the field, %d in the centre, sources there %v", kills, len(field), len(centre), sources)
	if !slices.Equal(field, centre) {
		t.Errorf("the logs differ: %s", apart(field, centre))
	}
	if len(field) == 0 || sources["uplink.kim-long-box"] != len(centre) {
		t.Errorf("%d readings in the field; sources %v", len(field), sources)
	}
}

// apart tells the first difference of two lists, and how many there are of each.
func apart(a, b []string) string {
	count := map[string]int{}
	for _, x := range a {
		count[x]++
	}
	for _, x := range b {
		count[x]--
	}
	lost, doubled := 0, 0
	for _, n := range count {
		lost, doubled = lost+max(n, 0), doubled+max(-n, 0)
	}
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	return fmt.Sprintf("%d lost, %d doubled, first at %d", lost, doubled, at)
}

// sameWarnings compares what lasts in the field with what the centre has of it.
func (p *pushedPair) sameWarnings(t *testing.T) {
	t.Helper()
	stand := func(list []telemetry.Warning, prefix string) map[string]string {
		out := map[string]string{}
		for _, w := range list {
			if (w.Gateway != "") == (prefix != "") && w.State != telemetry.Pending {
				out[strings.TrimPrefix(w.ID, prefix)] = fmt.Sprintf("%s %s %s %s", w.State, w.Severity, w.Device, w.Start)
			}
		}
		return out
	}
	var field, centre map[string]string
	eventually(t, "the same warnings", 10*time.Second, func() bool {
		field, centre = stand(p.field.warnings("?state=all"), ""), stand(p.centre.warnings("?state=all"), "kim-long-box-")
		return len(field) == len(centre)
	})
	for id, want := range field {
		if centre[id] != want {
			t.Errorf("warning %s: %q in the field, %q in the centre", id, want, centre[id])
		}
	}
	t.Logf("%d warnings", len(field))
}

// TestUplinkResumes measures how long a line that returns is not used.
func TestUplinkResumes(t *testing.T) {
	t.Parallel()
	p := newPushedPair(t, "")
	p.centre.start()
	p.field.start()
	var client paho.Client
	level(p.field, &client, "kim-long", 1, 0.5)
	had := func(n int) bool {
		rows := p.centre.rows(fmt.Sprintf("SELECT flow_m3s FROM river WHERE flow_m3s = %d", n))
		return len(rows) == 1
	}
	eventually(t, "pushed", 10*time.Second, func() bool { return had(1) })
	for i, lasts := range []time.Duration{1 * time.Second, 4 * time.Second, 9 * time.Second} {
		p.line.open(false)
		level(p.field, &client, "kim-long", 10*i+10, 0.5)
		<-time.After(lasts)
		level(p.field, &client, "kim-long", 10*i+11, 9)
		if had(10*i + 10) {
			t.Fatal("the hole lets readings pass")
		}
		p.line.open(true)
		back := time.Now()
		eventually(t, "resumed", 5*time.Second, func() bool { return had(10*i+10) && had(10*i+11) })
		t.Logf("after %s without a line: resumed in %s", lasts, time.Since(back).Round(10*time.Millisecond))
		level(p.field, &client, "kim-long", 10*i+12, 0.5)
	}
	client.Disconnect(0)
	eventually(t, "the heartbeat is a reading", 5*time.Second, func() bool {
		return len(p.centre.rows(`SELECT lag_s, version_text FROM gateway WHERE device = 'kim-long-box'`)) > 0
	})
	for _, g := range []*gatewayProcess{p.field, p.centre} {
		_, out, _ := command(t, "health", "--config", filepath.Join(g.dir, "gateway.yaml"))
		words := strings.Join(strings.Fields(out), " ")
		if !strings.Contains(words, "uplink centre connected") && !strings.Contains(words, "gateway kim-long-box ") {
			t.Error(out)
		}
	}
}

// TestUplinkGuarded pushes over TLS with an account; a wrong secret is one clear line on
// the side that can put it right.
func TestUplinkGuarded(t *testing.T) {
	t.Parallel()
	c := prepare(t, "")
	c.called("centre")
	if code, _, said := command(t, "cert", "selfsigned", "--dir", filepath.Join(c.dir, "tls"), "--host", "127.0.0.1"); code != exitWell {
		t.Fatal(said)
	}
	text, err := os.ReadFile(filepath.Join(c.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	c.write("gateway.yaml", strings.Replace(string(text), "console: {listen: ", "uplink: {accept: true}\nconsole: {tls: {cert: tls/server.pem, key: tls/server-key.pem}, listen: ", 1))
	code, secret, said := command(t, "account", "add", "kim-long-box", "--role", "gateway", "--device", "kim-*", "--config", filepath.Join(c.dir, "gateway.yaml"))
	if code != exitWell {
		t.Fatal(said)
	}
	secret = regexp.MustCompile(`[A-Z2-7]{26}`).FindString(secret)
	c.launch("run", "--config", filepath.Join(c.dir, "gateway.yaml"))
	eventually(t, "the centre answers", 20*time.Second, func() bool {
		conn, err := net.Dial("tcp", c.ports.console)
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
	healthy := func(g *gatewayProcess, want string) {
		t.Helper()
		var out string
		eventually(t, want, 20*time.Second, func() bool {
			_, out, _ = command(t, "health", "--data", filepath.Join(g.dir, "data"))
			return strings.Contains(strings.Join(strings.Fields(out), " "), want)
		})
	}
	f := prepare(t, fmt.Sprintf("uplink: {url: \"https://%s\", heartbeat: 1s, secret: wrong, ca: %q}\n", c.ports.console, filepath.Join(c.dir, "tls", "ca.pem")))
	f.called("kim-long-box")
	f.start()
	healthy(f, "NOT CONNECTED, all is kept for it the centre refuses: the centre does not know uplink.account with uplink.secret")
	client := f.client("station")
	for n, device := range []string{"kim-long", "phu-oc", "kim-long-2"} {
		f.publish(client, "telemetry/"+device+"/river", fmt.Sprintf(`{"level_m":%d}`, n+1))
	}
	f.stop()
	if n := strings.Count(f.output.String(), "nothing is pushed to the centre"); n != 1 {
		t.Errorf("said %d times:\n%s", n, f.output)
	}
	text, err = os.ReadFile(filepath.Join(f.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	f.write("gateway.yaml", strings.Replace(string(text), "wrong", secret, 1))
	f.start()
	healthy(f, "uplink centre connected")
	healthy(c, "gateway kim-long-box up to date heard")
	healthy(c, "set aside not_own_device") // phu-oc, and the line nmea
	c.stop()
	f.stop()
	rivers, _ := rivers(t, c)
	if len(rivers) != 2 || !strings.HasPrefix(rivers[0], "kim-long ") || !strings.HasPrefix(rivers[1], "kim-long-2 ") {
		t.Error(rivers)
	}
}

// TestWarningsOfGuests: the centre's engine knows nothing of another gateway's warnings,
// and does not end them for that; only their gateway does.
func TestWarningsOfGuests(t *testing.T) {
	t.Parallel()
	s := spoolIn(t, t.TempDir(), nil)
	c, err := openCentre(t.Context(), s.Warnings(), nil)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UTC()
	for _, gateway := range []string{"", "kim-long-box", "phu-oc-box"} {
		step := telemetry.Transition{Step: 1, Warning: telemetry.Warning{ID: gateway + "-w", N: 1, Rule: "flood", Device: "d", State: telemetry.Active, Severity: telemetry.Severe, Start: now, At: now, Gateway: gateway}}
		if err := c.Step(t.Context(), []telemetry.Transition{step}); err != nil {
			t.Fatal(err)
		}
	}
	stands := func() string {
		var ids []string
		for _, w := range c.Lasting() {
			ids = append(ids, w.ID)
		}
		return strings.Join(ids, " ")
	}
	if err := c.orphan(t.Context(), now, map[string]bool{}); err != nil || stands() != "kim-long-box-w phu-oc-box-w" {
		t.Errorf("after the engine has lost its state: %s, %v", stands(), err)
	}
	if err := c.forget(t.Context(), "kim-long-box", now, map[string]bool{}); err != nil || stands() != "phu-oc-box-w" {
		t.Errorf("after the gateway has: %s, %v", stands(), err)
	}
}
