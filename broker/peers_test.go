package broker

import (
	"crypto/tls"
	"crypto/x509"
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
		cmd := exec.Command(node, "testdata/peer.mjs", url, ca, "kim-long", g.secrets["kim-long"], "reader", g.secrets["reader"])
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
