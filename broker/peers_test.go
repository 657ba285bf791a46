package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/certificate"
)

// encrypted starts a broker with accounts on TCP, TLS and WebSocket over TLS; the
// file is that of the authority.
func encrypted(t *testing.T) (*guarded, string) {
	t.Helper()
	dir := t.TempDir()
	if _, err := certificate.SelfSigned(certificate.Request{Dir: dir, Hosts: []string{"127.0.0.1"}, Life: time.Hour, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	cert, key := filepath.Join(dir, certificate.ServerCert), filepath.Join(dir, certificate.ServerKey)
	cfg := loopback()
	cfg.TLS = TLS{Listen: "127.0.0.1:0", Cert: cert, Key: key}
	cfg.Websocket = Websocket{Listen: "127.0.0.1:0", Cert: cert, Key: key}
	return guard(t, cfg), filepath.Join(dir, certificate.AuthorityCert)
}

func (g *guarded) urls() []string {
	return []string{"mqtt://" + g.Addr(), "mqtts://" + g.TLSAddr(), "wss://" + g.WebsocketAddr()}
}

// TestNpmMQTT needs Node and the npm package mqtt; .ci/peers installs it.
func TestNpmMQTT(t *testing.T) {
	t.Parallel()
	npm, err := filepath.Abs("../.ci/npm")
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if _, missing := os.Stat(filepath.Join(npm, "node_modules", "mqtt")); err != nil || missing != nil {
		if os.Getenv("HAIDANG_E2E") != "" {
			t.Fatal("node or the npm package mqtt is not installed: run .ci/peers")
		}
		t.Skip("node or the npm package mqtt is not installed (.ci/peers installs it)")
	}
	for i := range 3 {
		g, ca := encrypted(t) // which has heard of no wrong secret yet
		url := g.urls()[i]
		cmd := exec.Command(node, "testdata/peer.mjs", url, ca, "kim-long", g.secrets["kim-long"], "reader", g.secrets["reader"], "administrator", g.secrets["administrator"])
		cmd.Env = append(os.Environ(), "HAIDANG_NPM="+npm)
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "well" {
			t.Errorf("%s: %v: %s", url, err, out)
		}
	}
}

func TestPahoWithAccounts(t *testing.T) {
	t.Parallel()
	g, ca := encrypted(t)
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	for _, url := range g.urls() {
		o := paho.NewClientOptions().AddBroker(url).SetClientID("a").SetConnectTimeout(patience).SetProtocolVersion(4).SetTLSConfig(&tls.Config{RootCAs: pool}).
			SetUsername("kim-long").SetPassword(g.secrets["kim-long"])
		c := paho.NewClient(o)
		finish(t, c.Connect())
		finish(t, c.Publish("telemetry/kim-long/k", 2, false, `{"a":1}`))
		token := c.Subscribe("telemetry/#", 1, nil)
		if !token.WaitTimeout(patience) || token.(*paho.SubscribeToken).Result()["telemetry/#"] != 0x80 {
			t.Errorf("%s: a station may read telemetry: %v", url, token.Error())
		}
		c.Disconnect(0)
		wrong := paho.NewClient(o.SetPassword("wrong"))
		if token := wrong.Connect(); !token.WaitTimeout(patience) || token.Error() == nil {
			t.Errorf("%s: a wrong secret is let in", url)
		}
	}
	g.wants(t, "kim-long/k a=1", "kim-long/k a=1", "kim-long/k a=1")
}

// TestMosquittoOverTLS lets mosquitto's clients leave a will, find a retained
// message and a session, and share a subscription, without and with TLS. They speak
// no WebSocket.
func TestMosquittoOverTLS(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"mosquitto_pub", "mosquitto_sub"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip(name + " is not installed")
		}
	}
	g, ca := encrypted(t)
	for _, address := range []string{g.Addr(), g.TLSAddr()} {
		for _, version := range []string{"mqttv311", "mqttv5"} {
			m := mosquitto{t: t, g: g, address: address, version: version}
			if address == g.TLSAddr() {
				m.ca = ca
			}
			m.talk()
		}
	}
}

type mosquitto struct {
	t                    *testing.T
	g                    *guarded
	address, version, ca string
}

// command is one of mosquitto's clients as an account.
func (m mosquitto) command(name, user string, args ...string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(m.address)
	args = append([]string{"-h", host, "-p", port, "-V", m.version, "-u", user, "-P", m.g.secrets[user], "-q", "1"}, args...)
	if m.ca != "" {
		args = append(args, "--cafile", m.ca)
	}
	return exec.CommandContext(m.t.Context(), name, args...)
}

func (m mosquitto) pub(args ...string) {
	m.t.Helper()
	if out, err := m.command("mosquitto_pub", "administrator", args...).CombinedOutput(); err != nil {
		m.t.Fatalf("%s, %s: mosquitto_pub %q: %v: %s", m.address, m.version, args, err, out)
	}
}

// hears runs mosquitto_sub until it has heard want, one message a line.
func (m mosquitto) hears(want string, args ...string) {
	m.t.Helper()
	args = append(args, "-C", fmt.Sprint(strings.Count(want, " ")+1), "-W", "10")
	out, err := m.command("mosquitto_sub", "administrator", args...).CombinedOutput()
	if got := strings.Join(strings.Fields(string(out)), " "); err != nil || got != want {
		m.t.Errorf("%s, %s: mosquitto_sub %q: %v: %s, want %s", m.address, m.version, args, err, out, want)
	}
}

func (m mosquitto) talk() {
	m.g.set(func() { m.g.readings = nil })
	m.pub("-t", "chat/kept", "-m", "kept", "-r")
	m.hears("kept", "-t", "chat/kept")
	m.pub("-t", "chat/kept", "-n", "-r")

	// A session for each round: who leaves at the third message may not have been heard
	// to acknowledge them, and gets them again.
	session := []string{"-i", "away-" + m.version + m.address, "-c", "-t", "chat/away"}
	if m.version == "mqttv5" {
		session = append(session, "-x", "100")
	}
	held := m.g.Broker.subscriptions.Load()
	sub := m.command("mosquitto_sub", "administrator", append(session, "-E")...) // subscribes and leaves
	if out, err := sub.CombinedOutput(); err != nil || m.g.Broker.subscriptions.Load() == held {
		m.t.Fatalf("%s, %s: %v: %s", m.address, m.version, err, out)
	}
	for _, payload := range []string{"1", "2", "3"} {
		m.pub("-t", "chat/away", "-m", payload)
	}
	m.hears("1 2 3", session...)

	// A will, and a group of one.
	own := "commands/kim-long/" + m.version + m.ca
	dying := m.command("mosquitto_sub", "kim-long", "-t", own, "--will-topic", "telemetry/kim-long/k", "--will-payload", `{"gone":1}`)
	if err := dying.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "mosquitto_sub is there", func() bool { return !m.g.Broker.audience(own).empty() })
	_ = dying.Process.Kill()
	_ = dying.Wait()
	m.g.wants(m.t, "kim-long/k gone=1")
	group := m.command("mosquitto_sub", "administrator", "-i", "member", "-t", "$share/group/chat/shared", "-C", "2", "-W", "10")
	var heard bytes.Buffer
	group.Stdout = &heard
	if err := group.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "the group listens", func() bool { return !m.g.Broker.audience("chat/shared").empty() })
	m.pub("-t", "chat/shared", "-m", "a")
	m.pub("-t", "chat/shared", "-m", "b")
	if err := group.Wait(); err != nil || strings.Join(strings.Fields(heard.String()), " ") != "a b" {
		m.t.Errorf("%s, %s: the group heard %q, %v", m.address, m.version, heard.String(), err)
	}
}

// TestPythonPaho needs Debian's python3-paho-mqtt; .ci/peers installs it.
func TestPythonPaho(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import paho.mqtt.client").Run(); err != nil {
		if os.Getenv("HAIDANG_E2E") != "" {
			t.Fatal("python3-paho-mqtt is not installed: run .ci/peers")
		}
		t.Skip("python3-paho-mqtt is not installed (.ci/peers installs it)")
	}
	for i := range 3 {
		g, ca := encrypted(t) // which has heard of no wrong secret yet
		url := g.urls()[i]
		cmd := exec.Command(python, "testdata/peer.py", url, ca, "kim-long", g.secrets["kim-long"], "administrator", g.secrets["administrator"])
		if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "well" {
			t.Errorf("%s: %v: %s", url, err, out)
		}
	}
}
