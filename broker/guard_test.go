package broker

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/account"
	"haidang/gateway/certificate"
	"haidang/gateway/telemetry"
)

// A guarded is a broker with accounts, and their file.
type guarded struct {
	*house
	t        testing.TB
	path     string
	accounts *account.Store
	secrets  map[string]string
}

// guard starts a broker with accounts: of each role one of the role's name, but
// the station's is kim-long, and there is another, phu-oc.
func guard(t testing.TB, cfg Config, options ...Option) *guarded {
	t.Helper()
	g := &guarded{t: t, path: filepath.Join(t.TempDir(), account.FileName), secrets: map[string]string{}}
	g.edit(func(b *account.Book) error {
		for _, r := range []account.Record{
			{Name: "kim-long", Role: telemetry.RoleStation, Publish: []string{"tele/{account}/#", "chat/#"},
				Limits: telemetry.Limits{MessagesPerS: 1e6, BytesPerS: 1 << 30}},
			{Name: "phu-oc", Role: telemetry.RoleStation}, {Name: "vessel", Role: telemetry.RoleVessel},
			{Name: "integrator", Role: telemetry.RoleIntegrator, Devices: []string{"lora-*"}}, {Name: "reader", Role: telemetry.RoleReader},
			{Name: "administrator", Role: telemetry.RoleAdministrator},
		} {
			secret, err := b.Add(r, "a long password", true)
			if err != nil {
				return err
			}
			if secret == "" {
				secret = "a long password"
			}
			g.secrets[r.Name] = secret
		}
		return nil
	})
	var err error
	g.accounts, err = account.Open(account.Options{Path: g.path, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	g.house = newHouseWith(t, cfg, append(options, WithAccounts(g.accounts)))
	return g
}

// edit changes the file, and the accounts follow when they are open.
func (g *guarded) edit(change func(*account.Book) error) {
	g.t.Helper()
	if err := account.Edit(g.path, change); err != nil {
		g.t.Fatal(err)
	}
	if g.accounts != nil {
		if err := g.accounts.Reload(); err != nil {
			g.t.Fatal(err)
		}
	}
}

// as connects with an account.
func (g *guarded) as(name string, o hello) *wire {
	g.t.Helper()
	o.user, o.secret = name, g.secrets[name]
	if o.id == "" {
		o.id = "c-" + name
	}
	return g.connect(g.t, o)
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	g := guard(t, loopback())
	for i, c := range []struct {
		o      hello
		v4, v5 byte
	}{
		{hello{}, 5, 0x87},
		{hello{user: "kim-long"}, 5, 0x87},
		{hello{user: "kim-long", secret: "wrong"}, 4, 0x86},
		{hello{user: "nobody", secret: "wrong"}, 4, 0x86},
		{hello{user: "kim-long", secret: g.secrets["phu-oc"]}, 4, 0x86},
		{hello{user: "kim-long", secret: g.secrets["kim-long"]}, 0, 0},
		{hello{user: "administrator", secret: "a long password"}, 0, 0},
	} {
		for _, version := range []byte{4, 5} {
			c.o.version, c.o.id, c.o.wantsCode = version, "x", c.v4
			if version == 5 {
				c.o.wantsCode = c.v5
			}
			w := g.dialFrom(t, 100+byte(i)).connect(c.o)
			if c.o.wantsCode != 0 {
				w.wantsEnd()
			} else {
				w.ping()
			}
		}
	}
	g.counts(t, "haidang_broker_denied_total", "reason=no_credentials", 4)
	g.counts(t, "haidang_broker_denied_total", "reason=bad_credentials", 6)
	if said := g.logs.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, `msg="a client is not let in" reason=no_credentials user="" address=127.0.0.100`) {
		t.Errorf("said\n%s", said)
	}
}

func TestADevicePublishesAsItself(t *testing.T) {
	g := guard(t, loopback())
	for _, version := range []byte{4, 5} {
		w := g.as("kim-long", hello{version: version})
		w.publish(1, 1, "telemetry/kim-long/river", `{"level_m":3.6}`)
		w.wants("40 0001")
		w.publish(1, 2, "telemetry/phu-oc/river", `{"level_m":9.9}`)
		if version == 4 {
			w.wantsEnd() // MQTT 3.1.1 has no way to say it, 3.3.5
			continue
		}
		w.wants("40 000287")
		w.publish(2, 3, "influx/phu-oc", `river level_m=9.9`)
		w.wants("50 000387")
		w.publish(0, 0, "commands/kim-long/reboot", "x")
		w.publish(1, 4, "somewhere/else", "x")
		w.wants("40 000487")
		w.publish(1, 5, "chat/x", "allowed besides")
		w.wants("40 0005")
	}
	g.wants(t, "kim-long/river level_m=3.6", "kim-long/river level_m=3.6")
	g.counts(t, "haidang_broker_denied_total", "reason=publish", 5)
}

// What a payload says of another device is set aside, and the rest is taken.
func TestPayloadsSpeakForTheirAccount(t *testing.T) {
	cfg := loopback()
	cfg.Topics = []Mapping{{Topic: "tele/+/+", Device: "3", Kind: "river"}}
	g := guard(t, cfg)
	w := g.as("kim-long", hello{version: 5})
	w.publish(1, 1, "tele/kim-long/kim-long", `{"level_m":1}`)
	w.wants("40 0001")
	w.publish(1, 2, "tele/kim-long/phu-oc", `{"level_m":2}`)
	w.wants("40 000287")
	w.publish(1, 3, "influx/kim-long", "river,device=phu-oc level_m=3\nriver level_m=4")
	w.wants("40 0003")
	g.wants(t, "kim-long/river level_m=1", "kim-long/river level_m=4")
	if got := strings.Join(g.reasons(), " "); got != "bad_device" && got != "not_own_device" && got == "" {
		t.Errorf("set aside: %q", got)
	}
	lora := g.as("integrator", hello{version: 5})
	lora.publish(1, 1, "telemetry/lora-7/river", `{"level_m":5}`)
	lora.wants("40 0001")
	lora.publish(1, 2, "telemetry/kim-long/river", `{"level_m":6}`)
	lora.wants("40 000287")
}

func TestSubscriptionsOfRoles(t *testing.T) {
	g := guard(t, loopback())
	if err := g.Publish("warnings/kim-long/flood", []byte("high"), true, 1); err != nil {
		t.Fatal(err)
	}
	ask := func(w *wire, want string, filters ...string) {
		t.Helper()
		body := [][]byte{{0, 9}}
		if w.version == 5 {
			body = append(body, []byte{0})
		}
		for _, f := range filters {
			body = append(body, text(f), []byte{1})
		}
		w.send(packet(0x82, body...))
		first, answer := w.packet()
		if got := fmt.Sprintf("%02x %x", first, answer[len(answer)-len(filters):]); got != "90 "+want {
			t.Errorf("%q: %s, want %s", filters, got, want)
		}
	}
	for _, version := range []byte{4, 5} {
		no := map[byte]string{4: "80", 5: "87"}[version]
		w := g.as("kim-long", hello{version: version})
		ask(w, no+no+no+"01", "#", "telemetry/#", "commands/phu-oc/#", "commands/kim-long/#")
		ask(w, "01"+no, "warnings/#", "$share/g/telemetry/#")
		w.wantsDelivery(0x33, 1, "warnings/kim-long/flood", "high")
		ask(g.as("reader", hello{version: version}), "01"+no, "telemetry/#", "commands/#")
	}
	boss := g.as("administrator", hello{})
	for _, topic := range []string{"commands/kim-long/reboot", "commands/phu-oc/reboot"} {
		boss.publish(0, 0, topic, "now")
	}
	boss.ping() // who subscribes next has missed them
	ask(boss, "01", "#")
	w := g.as("kim-long", hello{version: 5, id: "second"})
	ask(w, "01", "commands/kim-long/#")
	boss.publish(0, 0, "commands/phu-oc/reboot", "now")
	boss.publish(0, 0, "commands/kim-long/reboot", "now")
	w.wantsDelivery(0x30, 0, "commands/kim-long/reboot", "now")
	w.ping()
	g.counts(t, "haidang_broker_denied_total", "reason=subscribe", 10)
}

func TestWillsOfAccounts(t *testing.T) {
	g := guard(t, loopback())
	g.as("kim-long", hello{id: "a", willTopic: "telemetry/phu-oc/k", willPayload: `{"a":1}`, wantsCode: 5}).wantsEnd()
	g.as("kim-long", hello{version: 5, id: "a", willTopic: "telemetry/phu-oc/k", willPayload: `{"a":1}`, wantsCode: 0x87}).wantsEnd()
	w := g.as("kim-long", hello{id: "a", willTopic: "telemetry/kim-long/k", willPayload: `{"a":1}`})
	_ = w.Close()
	g.wants(t, "kim-long/k a=1")
	w = g.as("kim-long", hello{id: "b", willTopic: "influx/kim-long", willPayload: "k,device=phu-oc a=2"})
	_ = w.Close()
	eventually(t, "the will of another device is set aside", func() bool { return len(g.reasons()) == 1 })
	g.wants(t, "kim-long/k a=1")
	g.counts(t, "haidang_broker_denied_total", "reason=will", 2)
}

// A client id belongs to the account that uses it.
func TestClientIDsOfAccountsAreTheirOwn(t *testing.T) {
	g := guard(t, loopback())
	w := g.as("kim-long", hello{id: "a", keep: true})
	w.subscribe(1, "warnings/#", 1)
	other := g.as("phu-oc", hello{id: "a", keep: true}) // no session of another
	other.ping()
	w.ping()
	_ = w.Close()
	g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	if err := g.Publish("warnings/kim-long/flood", []byte("high"), false, 1); err != nil {
		t.Fatal(err)
	}
	w = g.as("kim-long", hello{id: "a", keep: true, wantsSession: true})
	w.wantsDelivery(0x32, 1, "warnings/kim-long/flood", "high") // for the first time: no duplicate
	other.ping()
}

func TestChangedAccountsEnd(t *testing.T) {
	g := guard(t, loopback())
	listener := g.as("administrator", hello{id: "l"})
	listener.subscribe(1, "telemetry/#", 0)
	w5 := g.as("kim-long", hello{version: 5, id: "five", keep: true, expiry: 1000, willTopic: "telemetry/kim-long/k", willPayload: `{"gone":1}`})
	w5.subscribe(1, "warnings/#", 1)
	w4 := g.as("kim-long", hello{id: "four", keep: true})
	away := g.as("kim-long", hello{id: "away", keep: true})
	away.subscribe(1, "warnings/#", 1)
	_ = away.Close()
	g.counts(t, "haidang_broker_disconnects_total", "reason=lost", 1)
	other := g.as("phu-oc", hello{})
	g.edit(func(b *account.Book) error { return b.Remove("kim-long") })
	first, body := w5.packet()
	if first != 0xe0 || body[0] != 0x98 {
		t.Fatalf("packet %x %x is no DISCONNECT for an administrative action", first, body)
	}
	w5.wantsEnd()
	w4.wantsEnd()
	other.ping()
	listener.ping() // no will
	eventually(t, "no session is left", func() bool {
		g.Broker.sessions.mu.Lock()
		defer g.Broker.sessions.mu.Unlock()
		return len(g.Broker.sessions.byID) == 2 && len(g.server.Topics.Subscribers("warnings/x").Subscriptions) == 0
	})
	g.counts(t, "haidang_broker_revoked_total", "", 2)
	g.as("kim-long", hello{wantsCode: 4}).wantsEnd()
	g.edit(func(b *account.Book) error { return b.SetDisabled("phu-oc", true) })
	other.wantsEnd()
	g.Broker.usages.mu.Lock()
	defer g.Broker.usages.mu.Unlock()
	for name := range g.Broker.usages.byName {
		if name == "kim-long" {
			t.Error("what the account used is still counted")
		}
	}
}

// A new secret ends the connections of the old one; who comes with it finds his
// subscriptions and what was queued, unless the account is gone meanwhile.
func TestARotatedAccountKeepsItsQueue(t *testing.T) {
	for _, keep := range []time.Duration{0, 3 * time.Second, time.Hour} {
		t.Run(keep.String(), func(t *testing.T) {
			t.Parallel()
			g := guard(t, loopback())
			w := g.as("phu-oc", hello{version: 5, id: "a", keep: true, expiry: 1000})
			w.subscribe(1, "warnings/#", 1)
			rotate := func(keep time.Duration) {
				g.edit(func(b *account.Book) (err error) { g.secrets["phu-oc"], err = b.Rotate("phu-oc", keep); return err })
			}
			old := g.secrets["phu-oc"]
			rotate(keep)
			w.wantsDisconnect(0x98)
			if keep > 0 {
				w = g.connect(t, hello{version: 5, id: "a", user: "phu-oc", secret: old, keep: true, expiry: 1000, wantsSession: true})
				if keep < time.Hour {
					w.wantsDisconnect(0x98) // the old one has had its time
				} else {
					_ = w.Close()
				}
			}
			eventually(t, "nobody is connected", func() bool { return g.metric("haidang_broker_clients", "") == 0 })
			if err := g.Publish("warnings/phu-oc/flood", []byte("high"), false, 1); err != nil {
				t.Fatal(err)
			}
			w = g.as("phu-oc", hello{version: 5, id: "a", keep: true, expiry: 1000, wantsSession: true})
			w.wantsDelivery(0x32, 1, "warnings/phu-oc/flood", "high")
			rotate(0)
			w.wantsDisconnect(0x98)
			g.edit(func(b *account.Book) error { return b.Remove("phu-oc") })
			eventually(t, "the session ends", func() bool { return g.Broker.sessions.of("phu-oc/a") == nil })
			g.nothingHeld()
		})
	}
}

// The first account that is made ends what anyone began.
func TestTheFirstAccountClosesTheDoor(t *testing.T) {
	path := filepath.Join(t.TempDir(), account.FileName)
	accounts, err := account.Open(account.Options{Path: path, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	h := newHouseWith(t, loopback(), []Option{WithAccounts(accounts)})
	w := h.connect(t, hello{id: "a"})
	w.publish(1, 1, "telemetry/d/k", `{"a":1}`)
	w.wants("40 0001")
	if err := account.Edit(path, func(b *account.Book) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if err := accounts.Reload(); err != nil {
		t.Fatal(err)
	}
	w.wantsEnd()
	h.connect(t, hello{id: "a", wantsCode: 5}).wantsEnd()
}

func TestNothingButLoopbackWithoutAccounts(t *testing.T) {
	cfg := loopback()
	cfg.Listen = "0.0.0.0:0"
	if _, err := New(cfg, newArchive(t), prometheus.NewRegistry(), slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "no accounts") {
		t.Error(err)
	}
}

func TestTLSWithAccounts(t *testing.T) {
	dir := t.TempDir()
	if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Clients: []string{"kim-long", "stranger"}, Life: time.Hour, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	keeper, err := certificate.Open("test", certificate.Files{Cert: at(certificate.ServerCert), Key: at(certificate.ServerKey), ClientCA: at(certificate.AuthorityCert)},
		prometheus.NewRegistry(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	cfg := loopback()
	cfg.TLS = TLS{Listen: "127.0.0.1:0", Cert: at(certificate.ServerCert), Key: at(certificate.ServerKey), ClientCA: at(certificate.AuthorityCert)}
	cfg.Websocket = Websocket{Listen: "127.0.0.1:0", Cert: cfg.TLS.Cert, Key: cfg.TLS.Key}
	g := guard(t, cfg, WithTLS(keeper.TLS(), keeper.TLS()))
	text, err := os.ReadFile(at(certificate.AuthorityCert))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	dial := func(client string) *wire {
		t.Helper()
		c := &tls.Config{RootCAs: pool}
		if client != "" {
			pair, err := tls.LoadX509KeyPair(at("client-"+client+".pem"), at("client-"+client+"-key.pem"))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		conn, err := tls.Dial("tcp", g.TLSAddr(), c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return &wire{t: t, Conn: conn, in: bufio.NewReader(conn)}
	}
	w := dial("kim-long").connect(hello{id: "a"})
	w.publish(1, 1, "telemetry/kim-long/k", `{"a":1}`)
	w.wants("40 0001")
	dial("kim-long").connect(hello{id: "b", user: "kim-long"}).ping()
	dial("kim-long").connect(hello{id: "c", user: "phu-oc", wantsCode: 4}).wantsEnd()
	dial("kim-long").connect(hello{id: "c", user: "phu-oc", secret: g.secrets["phu-oc"]}).ping() // who says more
	dial("stranger").connect(hello{id: "d", wantsCode: 4}).wantsEnd()
	dial("").connect(hello{id: "e", wantsCode: 5}).wantsEnd()
	dial("").connect(hello{id: "e", user: "phu-oc", secret: g.secrets["phu-oc"]}).ping()
	g.edit(func(b *account.Book) error { return b.SetDisabled("kim-long", true) })
	w.wantsEnd()
	dial("kim-long").connect(hello{id: "a", wantsCode: 4}).wantsEnd()
	conn, err := net.Dial("tcp", g.TLSAddr()) // that speaks no TLS
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	plain := &wire{t: t, Conn: conn, in: bufio.NewReader(conn)}
	plain.send(packet(0x10, []byte("MQTT"), []byte{4, 2, 0, 60}, []byte{0, 1, 'a'}))
	_ = plain.SetReadDeadline(time.Now().Add(patience))
	for b := byte(0); err == nil; b, err = plain.in.ReadByte() {
		_ = b
	}
}
