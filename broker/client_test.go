package broker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// pahoClient connects with the client that most Go programs use.
func pahoClient(t *testing.T, url, id string) paho.Client {
	t.Helper()
	// A client that is told to end while another takes its id over would connect again,
	// and take that one over in turn.
	o := paho.NewClientOptions().AddBroker(url).SetClientID(id).SetConnectTimeout(patience).SetAutoReconnect(false).
		SetTLSConfig(&tls.Config{InsecureSkipVerify: true}) // the certificate is the test's own
	c := paho.NewClient(o)
	finish(t, c.Connect())
	t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func finish(t *testing.T, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(patience) {
		t.Fatal("not answered in time")
	}
	if err := token.Error(); err != nil {
		t.Fatal(err)
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key.
func selfSigned(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("cert.pem", "CERTIFICATE", der), write("key.pem", "PRIVATE KEY", secret)
}

func TestPaho(t *testing.T) {
	cfg := loopback()
	cfg.TLS.Listen, cfg.Websocket.Listen = "127.0.0.1:0", "127.0.0.1:0"
	cfg.TLS.Cert, cfg.TLS.Key = selfSigned(t)
	h := newHouse(t, cfg)
	for _, url := range []string{"tcp://" + h.Addr(), "ssl://" + h.TLSAddr(), "ws://" + h.WebsocketAddr()} {
		t.Run(strings.SplitN(url, ":", 2)[0], func(t *testing.T) {
			h.set(func() { h.readings = nil })
			listener := pahoClient(t, url, "l")
			heard := make(chan string, 10)
			finish(t, listener.Subscribe("telemetry/#", 2, func(_ paho.Client, m paho.Message) { heard <- string(m.Payload()) }))
			c := pahoClient(t, url, "a")
			var want []string
			for qos := range byte(3) {
				finish(t, c.Publish("telemetry/d/k", qos, false, fmt.Sprintf(`{"a":%d}`, qos)))
				select {
				case got := <-heard:
					if got != fmt.Sprintf(`{"a":%d}`, qos) {
						t.Fatalf("heard %s", got)
					}
				case <-time.After(patience):
					t.Fatal("nothing heard")
				}
				want = append(want, fmt.Sprintf("d/k a=%d", qos))
			}
			h.wants(t, want...)
			large := strings.Repeat("x", 200<<10)
			finish(t, c.Publish("telemetry/d/k", 1, false, large))
			<-heard
		})
	}
}

func TestPagesFromElsewhereMayNotConnect(t *testing.T) {
	for origin, want := range map[string]bool{
		"": true, "http://127.0.0.1:8080": true, "http://localhost:8080": true, "http://[::1]:80": true, "http://127.0.0.1:8083": true,
		"https://example.org": false, "null": false, "http://127.0.0.1.example.org": false,
	} {
		r := &http.Request{Host: "127.0.0.1:8083", Header: http.Header{}}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		if got := sameMachine(r); got != want {
			t.Errorf("origin %q: %v", origin, got)
		}
	}
}

func TestMosquitto(t *testing.T) {
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub is not installed")
	}
	sub, err := exec.LookPath("mosquitto_sub")
	if err != nil {
		t.Skip("mosquitto_sub is not installed")
	}
	h := newHouse(t, loopback())
	host, port, _ := net.SplitHostPort(h.Addr())
	if err := h.Publish("warnings/d/flood", []byte("high water"), true, 1); err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			out, err := exec.Command(pub, "-h", host, "-p", port, "-V", version, "-q", qos, "-t", "telemetry/d/k", "-m", `{"a":`+qos+`}`).CombinedOutput()
			if err != nil {
				t.Fatalf("%s QoS %s: %v: %s", version, qos, err, out)
			}
			want = append(want, "d/k a="+qos)
			h.wants(t, want...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		// MQTT 5 says that it was refused, the others that it was taken.
		out, err := exec.CommandContext(ctx, pub, "-h", host, "-p", port, "-V", version, "-q", "1", "-t", "$SYS/x", "-m", "x").CombinedOutput()
		if ctx.Err() != nil || err != nil && version != "mqttv5" {
			t.Fatalf("%s, publish on $SYS: %v: %s", version, err, out)
		}
		out, err = exec.Command(sub, "-h", host, "-p", port, "-V", version, "-q", "1", "-t", "warnings/#", "-C", "1", "-W", "10").CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "high water" {
			t.Fatalf("%s: %v: %s", version, err, out)
		}
	}
}
