package broker

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/account"
	"haidang/gateway/certificate"
	"haidang/gateway/telemetry"
)

// The trials need minutes and thousands of descriptors; `make bench` runs them.
func needTrials(t *testing.T) {
	t.Helper()
	if os.Getenv("HAIDANG_TRIALS") == "" {
		t.Skip("a trial of thousands of connections: set HAIDANG_TRIALS=1")
	}
}

// A crowd is what a process of many clients is told.
type crowd struct {
	Address string
	Pool    string   // file of the authority; empty: no TLS
	Secrets []string // of the accounts storm-0, storm-1, ...; none: no accounts
	Clients int
	Publish bool
}

// TestMain lets the test binary be a crowd, so that its memory and descriptors
// are not those of the broker.
func TestMain(m *testing.M) {
	if os.Getenv("HAIDANG_CROWD") == "" {
		os.Exit(m.Run())
	}
	if err := runCrowd(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// runCrowd connects all clients each time that it reads a line and says how long
// it took, the slowest of them, and how often one had to try again; it first
// cuts those of the last time.
func runCrowd(in io.Reader, out io.Writer) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	lines.Scan()
	var c crowd
	if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
		return err
	}
	config := &tls.Config{}
	if c.Pool != "" {
		text, err := os.ReadFile(c.Pool)
		if err != nil {
			return err
		}
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(text)
	}
	conns := make([]net.Conn, c.Clients)
	for lines.Scan() {
		for _, conn := range conns {
			if conn != nil {
				_ = conn.Close()
			}
		}
		start := time.Now()
		var all sync.WaitGroup
		var mu sync.Mutex
		again := 0
		for i := range conns {
			all.Go(func() {
				for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
					var err error
					if conns[i], err = c.join(i, config); err == nil {
						return
					}
					mu.Lock()
					again++
					mu.Unlock()
					timer := time.NewTimer(pause)
					<-timer.C
				}
			})
		}
		all.Wait()
		fmt.Fprintf(out, "%d %d\n", time.Since(start).Milliseconds(), again)
	}
	return lines.Err()
}

// join connects client i and, if it is to, publishes one message and waits until
// it is acknowledged.
func (c *crowd) join(i int, config *tls.Config) (_ net.Conn, err error) {
	dialer := &net.Dialer{Timeout: 30 * time.Second}
	var conn net.Conn
	if config.RootCAs != nil {
		conn, err = tls.DialWithDialer(dialer, "tcp", c.Address, config)
	} else {
		conn, err = dialer.Dial("tcp", c.Address)
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	name := fmt.Sprint("storm-", i)
	hello := packet(0x10, text("MQTT"), []byte{4, 2, 1, 0}, text(name))
	if len(c.Secrets) > 0 {
		hello = packet(0x10, text("MQTT"), []byte{4, 0xc2, 1, 0}, text(name), text(name), text(c.Secrets[i]))
	}
	if _, err = conn.Write(hello); err != nil {
		return nil, err
	}
	var answer [4]byte
	if _, err = io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[3] != 0 {
		return nil, fmt.Errorf("CONNACK %x", answer)
	}
	if c.Publish {
		w := &wire{version: 4}
		if _, err = conn.Write(w.publication(2, 1, "telemetry/"+name+"/k", `{"a":1}`)); err != nil {
			return nil, err
		}
		if _, err = io.ReadFull(conn, answer[:]); err != nil {
			return nil, err
		}
	}
	return conn, nil
}

// A gathering is a crowd in a process of its own.
type gathering struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Scanner
}

func gather(t *testing.T, c crowd) *gathering {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HAIDANG_CROWD=1")
	cmd.Stderr = os.Stderr
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	told, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(in, "%s\n", told); err != nil {
		t.Fatal(err)
	}
	return &gathering{t: t, in: in, out: bufio.NewScanner(out)}
}

// connect connects the crowd, once more if it was before.
func (g *gathering) connect() (took time.Duration, again int) {
	g.t.Helper()
	fmt.Fprintln(g.in)
	if !g.out.Scan() {
		g.t.Fatal("the crowd has ended")
	}
	var ms int64
	if _, err := fmt.Sscan(g.out.Text(), &ms, &again); err != nil {
		g.t.Fatal(err)
	}
	return time.Duration(ms) * time.Millisecond, again
}

// The crowd's accounts.
func stormAccounts(t *testing.T, n int) (*account.Store, []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), account.FileName)
	secrets := make([]string, n)
	err := account.Edit(path, func(b *account.Book) error {
		for i := range n {
			var err error
			if secrets[i], err = b.Add(account.Record{Name: fmt.Sprint("storm-", i), Role: telemetry.RoleStation}, "", true); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	accounts, err := account.Open(account.Options{Path: path, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return accounts, secrets
}

// TestStorm lets 5,000 TLS clients with accounts come, be cut off, and come back
// at once, without resuming their sessions of TLS, while others publish.
func TestStorm(t *testing.T) {
	needTrials(t)
	const clients, others = 5000, 10
	dir := t.TempDir()
	if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Life: time.Hour, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	accounts, secrets := stormAccounts(t, clients+others)
	cfg := loopback()
	cfg.MaxClients = 2*clients + 100 // the dead are still there when they come back
	cfg.TLS = TLS{Listen: "127.0.0.1:0", Cert: filepath.Join(dir, certificate.ServerCert), Key: filepath.Join(dir, certificate.ServerKey)}
	h := newHouseWith(t, cfg, []Option{WithAccounts(accounts)})
	g := gather(t, crowd{Address: h.TLSAddr(), Pool: filepath.Join(dir, certificate.AuthorityCert), Secrets: secrets, Clients: clients, Publish: true})
	first, again := g.connect()
	t.Logf("%d TLS clients with accounts come, publish and are acknowledged: %s, %d tries again", clients, first, again)

	stop := make(chan struct{})
	var publishing sync.WaitGroup
	latencies := make([][]time.Duration, others)
	for i := range others {
		publishing.Go(func() {
			name := fmt.Sprint("storm-", clients+i)
			w := h.connect(t, hello{id: name, user: name, secret: secrets[clients+i]})
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for n := 1; ; n++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				at := time.Now()
				w.publish(1, uint16(n), "telemetry/"+name+"/k", fmt.Sprintf(`{"n":%d}`, n))
				w.wants(fmt.Sprintf("40 %04x", uint16(n)))
				latencies[i] = append(latencies[i], time.Since(at))
			}
		})
	}
	took, again := g.connect()
	close(stop)
	publishing.Wait()
	var all []time.Duration
	for i := range others {
		all = append(all, latencies[i]...)
		device := fmt.Sprint("storm-", clients+i)
		have := 0
		for _, r := range h.written(false) {
			if strings.HasPrefix(r, device+"/k n=") {
				if have++; r != fmt.Sprintf("%s/k n=%d", device, have) {
					t.Fatalf("reading %d of %s is %s", have, device, r)
				}
			}
		}
		if have != len(latencies[i]) {
			t.Errorf("%s: %d of %d acknowledged readings are there", device, have, len(latencies[i]))
		}
	}
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("the others published nothing")
	}
	t.Logf("all %d come back at once: %s, %d tries again", clients, took, again)
	t.Logf("%d others meanwhile: %d messages, none lost, acknowledged p50 %s p99 %s max %s", others, len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1])
	if took > 30*time.Second {
		t.Errorf("the storm took %s; expected 30 s", took)
	}
}

// TestIdleConnections prints the memory of a connection that says nothing.
func TestIdleConnections(t *testing.T) {
	needTrials(t)
	const clients = 10_000
	dir := t.TempDir()
	if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Life: time.Hour, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS=%v", secure), func(t *testing.T) {
			cfg := loopback()
			cfg.MaxClients = clients + 100
			c := crowd{Clients: clients}
			if secure {
				cfg.TLS = TLS{Listen: "127.0.0.1:0", Cert: filepath.Join(dir, certificate.ServerCert), Key: filepath.Join(dir, certificate.ServerKey)}
				c.Pool = filepath.Join(dir, certificate.AuthorityCert)
			}
			h := newHouse(t, cfg)
			if c.Address = h.Addr(); secure {
				c.Address = h.TLSAddr()
			}
			before := resident(t)
			took, again := gather(t, c).connect()
			h.counts(t, "haidang_broker_clients", "", clients)
			after := resident(t)
			t.Logf("%d idle connections in %s, %d tries again: %d KiB each resident, %d goroutines each", clients, took, again, (after-before)/clients, runtime.NumGoroutine()/clients)
		})
	}
}

// resident is the memory of this process in KiB, without what it could give back.
func resident(t *testing.T) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skip("there is no /proc/self/status")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}
