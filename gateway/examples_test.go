package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestExamples checks each configuration of deploy/ as an administrator does, and
// runs it for a moment. What differs is where it keeps its data and where it
// listens: the addresses of the examples belong to other machines.
func TestExamples(t *testing.T) {
	free := freePorts(t, 16)
	for i, c := range []struct {
		folder   string
		accounts bool
		console  string // as the configuration has it; "" is the default
		replace  []string
		tls      bool
	}{
		{folder: "station"},
		{folder: "coast", replace: []string{"udp://127.0.0.1:10111", "udp://127.0.0.1:0", "127.0.0.1:8086", free[14]}},
		{folder: "centre", accounts: true, console: "0.0.0.0:8080", tls: true,
			replace: []string{"0.0.0.0:8883", free[12], "127.0.0.1:1883", free[13], "0.0.0.0:8086", free[15]}},
		{folder: "container", accounts: true, console: "0.0.0.0:8080",
			replace: []string{"0.0.0.0:1883", free[11], `{url: "http://influxdb:8086", token: "${INFLUX_TOKEN}", org: haidang, bucket: haidang}`, "{listen: " + free[10] + "}"}},
	} {
		t.Run(c.folder, func(t *testing.T) {
			t.Parallel()
			g := &gatewayProcess{t: t, dir: t.TempDir(), ports: ports{console: free[i]}}
			copyFolder(t, filepath.Join("..", "deploy", c.folder), g.dir)
			replace := append([]string{"/var/lib/haidang", filepath.Join(g.dir, "data"), "/etc/haidang/tls", filepath.Join(g.dir, "tls")}, c.replace...)
			name := filepath.Join(g.dir, "gateway.yaml")
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			changed := strings.NewReplacer(replace...).Replace(string(text))
			if c.console == "" {
				changed += "\nconsole: {listen: " + g.ports.console + "}\n"
				if !strings.Contains(changed, "\nbroker:") {
					changed += "broker: {listen: 127.0.0.1:0}\n"
				}
				if !strings.Contains(changed, "\ninflux:") {
					changed += "influx: {listen: 127.0.0.1:0}\n"
				}
			} else {
				changed = strings.ReplaceAll(changed, c.console, g.ports.console)
			}
			if !strings.Contains(changed, "\nais:") {
				changed += "\nais: []\n" // the default port may be taken on this machine
			}
			g.write("gateway.yaml", changed)
			if c.tls {
				if code, _, said := typed(t, "", "cert", "selfsigned", "--dir", filepath.Join(g.dir, "tls"), "--host", "127.0.0.1"); code != exitWell {
					t.Fatalf("cert: %d %s", code, said)
				}
			}
			if c.accounts {
				g.account("a long password for lan\n", "add", "lan", "--role", "administrator")
				g.account("", "add", "kim-long", "--role", "station")
			}
			if code, out, said := typed(t, "", "check", "--config", name); code != exitWell || !strings.HasPrefix(out, "well: ") {
				t.Fatalf("check: %d %s%s", code, out, said)
			}
			g.launch("run", "--config", name)
			g.awaitReady(c.tls)
			if code := g.stop(); code != exitWell {
				t.Errorf("stopped with %d\n%s", code, g.output)
			}
			if strings.Contains(g.output.String(), "level=ERROR") {
				t.Errorf("it told of errors:\n%s", g.output)
			}
		})
	}
}

// awaitReady waits for /readyz, over TLS with the authority of the process's
// folder.
func (g *gatewayProcess) awaitReady(encrypted bool) {
	g.t.Helper()
	scheme, client := "http", &http.Client{}
	if encrypted {
		authority, err := os.ReadFile(filepath.Join(g.dir, "tls", "ca.pem"))
		if err != nil {
			g.t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(authority)
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
		defer transport.CloseIdleConnections()
		scheme, client = "https", &http.Client{Transport: transport}
	}
	eventually(g.t, "ready", 30*time.Second, func() bool {
		select {
		case <-g.ended:
			g.t.Fatalf("haidang ended: %v\n%s", g.err, g.output)
		default:
		}
		response, err := client.Get(scheme + "://" + g.ports.console + "/readyz")
		if err != nil {
			return false
		}
		response.Body.Close()
		return response.StatusCode == http.StatusOK
	})
}

func copyFolder(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil || entry.IsDir() {
			return errors.Join(err, os.MkdirAll(filepath.Join(to, relative), 0o755))
		}
		text, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(filepath.Join(to, relative), bytes.Clone(text), 0o644))
	})
	if err != nil {
		t.Fatal(err)
	}
}
