package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"haidang/gateway/account"
	"haidang/gateway/telemetry"
)

// typed executes a command line with something typed.
func typed(t *testing.T, in string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	code = execute(ctx, environment{stdin: strings.NewReader(in), stdout: &out, stderr: &err}, args)
	return code, out.String(), err.String()
}

// account executes a verb on the accounts of the process and returns the secret
// or token that it shows.
func (g *gatewayProcess) account(in string, args ...string) string {
	g.t.Helper()
	var out, errs bytes.Buffer
	args = append([]string{"account"}, append(args, "--json", "--config", filepath.Join(g.dir, "gateway.yaml"))...)
	if code := execute(g.t.Context(), environment{stdin: strings.NewReader(in), stdout: &out, stderr: &errs}, args); code != exitWell {
		g.t.Fatalf("%q: %d %s", args, code, errs.String())
	}
	var answer secretAnswer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		g.t.Fatalf("%q: %s: %v", args, out.String(), err)
	}
	return answer.Secret + answer.Token
}

// ask sends a request as somebody, with a secret; user "" is a bearer of a token.
func (g *gatewayProcess) ask(method, url, user, secret, body string) (int, string) {
	g.t.Helper()
	r, err := http.NewRequestWithContext(g.t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		g.t.Fatal(err)
	}
	switch {
	case user != "":
		r.SetBasicAuth(user, secret)
	case secret != "":
		r.Header.Set("Authorization", "Bearer "+secret)
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		g.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		g.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestAccountsOfARunningGateway(t *testing.T) {
	g := prepare(t, "")
	g.start()
	anyone := g.client("anyone")
	g.publish(anyone, "telemetry/kim-long/river", `{"level_m":3.62}`)
	const password = "thuyền về bến an toàn\n"
	station := g.account("", "add", "kim-long", "--role", "station")
	g.account(password, "add", "lan", "--role", "operator")
	g.account(password, "add", "vi", "--role", "viewer")
	grafana := g.account("", "add", "grafana", "--role", "reader")
	token := g.account("", "token", "grafana", "--right", "read", "--expires", "1d")
	console, influx := "http://"+g.ports.console, "http://"+g.ports.influx
	eventually(t, "accounts are in force", 5*time.Second, func() bool {
		status, _ := g.ask("GET", console+"/api/v1/warnings", "", token, "")
		anonymous, _ := g.ask("GET", console+"/api/v1/warnings", "", "", "")
		return status == 200 && anonymous == 401 && !anyone.IsConnectionOpen()
	})
	secret := strings.TrimSpace(password)
	var id string
	eventually(t, "the warning is there", 5*time.Second, func() bool {
		_, body := g.ask("GET", console+"/api/v1/warnings", "lan", secret, "")
		var answer struct{ Warnings []telemetry.Warning }
		if json.Unmarshal([]byte(body), &answer) == nil && len(answer.Warnings) == 1 {
			id = answer.Warnings[0].ID
		}
		return id != ""
	})
	ack := console + "/api/v1/warnings/" + id + "/ack"
	query := influx + "/query?db=haidang&q=SELECT+last(level_m)+FROM+river"
	write := influx + "/write?db=haidang"
	for _, c := range []struct {
		method, url, user, secret, body string
		want                            int
		says                            string
	}{
		{"GET", console + "/healthz", "", "", "", 200, ""},
		{"GET", console + "/readyz", "", "", "", 200, ""},
		{"GET", console + "/metrics", "", "", "", 401, ""},
		{"GET", console + "/metrics", "", token, "", 200, ""},
		{"GET", console + "/", "", "", "", 401, ""},
		{"GET", console + "/", "vi", secret, "", 200, "<html"},
		{"GET", console + "/api/v1/warnings", "vi", "wrong", "", 401, "unknown account"},
		{"GET", console + "/api/v1/warnings", "kim-long", station, "", 403, "no right to read"},
		{"POST", ack, "vi", secret, `{"n":1,"by":"Vi"}`, 403, "no right to operate"},
		{"POST", ack, "lan", secret, `{"n":1,"by":"somebody else"}`, 200, `"acked_by":"lan"`},
		{"POST", console + "/api/v1/rules/reload", "lan", secret, "", 403, "no right to rule"},
		{"GET", query, "", "", "", 401, ""},
		{"GET", query, "grafana", grafana, "", 200, "3.62"},
		{"GET", query + "&u=grafana&p=" + grafana, "", "", "", 200, "3.62"},
		{"GET", query, "kim-long", station, "", 403, ""},
		{"GET", influx + "/ping", "", "", "", 204, ""},
		{"POST", write, "", "", "river,device=kim-long level_m=1", 401, ""},
		{"POST", write, "grafana", grafana, "river,device=kim-long level_m=1", 403, ""},
		{"POST", write, "kim-long", station, "river,device=kim-long level_m=1", 204, ""},
		{"POST", write, "kim-long", station, "river,device=kim-long level_m=2\nriver,device=phu-oc level_m=9", 400, "does not speak for"},
	} {
		if status, body := g.ask(c.method, c.url, c.user, c.secret, c.body); status != c.want || !strings.Contains(body, c.says) {
			t.Errorf("%s %s as %q: %d %.300s; want %d %s", c.method, c.url, c.user, status, body, c.want, c.says)
		}
	}
	if _, _, code := g.verb("devices", "--data", filepath.Join(g.dir, "data")); code != exitWell {
		t.Errorf("the socket asks for an account: %d", code)
	}
	options := paho.NewClientOptions().AddBroker("tcp://" + g.ports.mqtt).SetClientID("a").SetUsername("kim-long").SetPassword(station)
	c := paho.NewClient(options)
	if token := c.Connect(); !token.WaitTimeout(5*time.Second) || token.Error() != nil {
		t.Fatal(token.Error())
	}
	g.publish(c, "telemetry/kim-long/river", `{"level_m":3.7}`)
	g.account("", "remove", "kim-long")
	eventually(t, "the session ends", 5*time.Second, func() bool { return !c.IsConnectionOpen() })
}

// A stream of events ends with the account that reads it.
func TestEventsEndWithTheirAccount(t *testing.T) {
	g := prepare(t, "")
	token := ""
	g.account("", "add", "wall", "--role", "reader")
	token = g.account("", "token", "wall")
	g.start()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+g.ports.console+"/api/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatalf("%v %v", answer, err)
	}
	defer answer.Body.Close()
	g.account("", "lock", "wall")
	ended := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, answer.Body); close(ended) }()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the stream goes on")
	}
}

func TestNothingButLoopbackWithoutAccounts(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "gateway.yaml")
	text := "data: " + filepath.Join(dir, "data") + "\nbroker: {listen: 0.0.0.0:1883}\nconsole: {listen: ':8080'}\ninflux: {listen: '[::]:8086'}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, said := command(t, "check", "--config", file)
	if code != exitUsage || strings.Count(said, "there are no accounts") != 3 || !strings.Contains(said, "gateway.yaml:2: broker.listen") {
		t.Errorf("%d %s", code, said)
	}
	if code, _, said := command(t, "account", "add", "kim-long", "--role", "station", "--config", file); code != exitWell {
		t.Fatal(said)
	}
	code, _, said = command(t, "check", "--config", file)
	if code != exitWell || strings.Count(said, "unencrypted") != 3 {
		t.Errorf("%d %s", code, said)
	}
	accounts := filepath.Join(dir, "data", account.FileName)
	if err := os.WriteFile(accounts, []byte("{\"format\":\"haidang-accounts\",\"version\":1}\n{\"name\":\"a b\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, said := command(t, "check", "--config", file); code != exitUsage || !strings.Contains(said, account.FileName+":2: name:") {
		t.Errorf("%d %s", code, said)
	}
}

func TestAccountVerbs(t *testing.T) {
	data := filepath.Join(t.TempDir(), "data")
	for _, c := range []struct {
		in   string
		args string
		code int
		says string
	}{
		{"", "list", 0, "There are no accounts"},
		{"", "add kim-long", 2, "--role"},
		{"", "add kim-long --role king", 2, "not one of"},
		{"", "add", 2, "want one name"},
		{"", "add a/b --role station", 1, "is not a name"},
		{"", "add kim-long --role station --limits messages_per_s=50,bytes_per_s=10KiB", 0, "shown this once"},
		{"", "add kim-long --role station", 1, "is there already"},
		{"", "add x --role station --limits speed=1", 2, "there is no such limit"},
		{"short\n", "add lan --role operator", 1, "10 at least"},
		{"", "add lan --role operator", 1, "no password"},
		{"long enough\n", "add lan --role operator --note night", 0, "Account lan (operator) is made."},
		{"", "rotate lan", 1, "use passwd"},
		{"another long one\n", "passwd lan", 0, "is changed"},
		{"another long one\n", "passwd kim-long", 1, "rotate gives it"},
		{"", "rotate kim-long --keep 7d", 0, "The old one is good until"},
		{"", "rotate kim-long --keep soon", 2, "--keep"},
		{"", "token kim-long --right rule", 1, "has no right"},
		{"", "token kim-long --expires never", 0, "hd1_"},
		{"", "untoken kim-long nothing", 1, "has no token"},
		{"", "set kim-long --device a/b", 1, "is not the name of a device"},
		{"", "set kim-long --publish tele/{account}/# --note mast", 0, "is changed"},
		{"", "lock kim-long", 0, "Account kim-long is locked."},
		{"", "list", 0, "kim-long  station   kim-long"},
		{"", "remove phu-oc", 1, `there is no account "phu-oc"`},
		{"", "remove lan", 0, "is gone"},
	} {
		code, out, said := typed(t, c.in, append(append([]string{"account"}, strings.Fields(c.args)...), "--data", data)...)
		if code != c.code || !strings.Contains(out+said, c.says) {
			t.Errorf("account %s: %d\n%s%s\nwant %d %s", c.args, code, out, said, c.code, c.says)
		}
	}
	_, out, _ := command(t, "account", "list", "--json", "--data", data)
	var listed struct{ Accounts []listedAccount }
	if err := json.Unmarshal([]byte(out), &listed); err != nil || len(listed.Accounts) != 1 || !listed.Accounts[0].Locked || listed.Accounts[0].Limits.MessagesPerS != 50 || len(listed.Accounts[0].Publish) != 1 || strings.Contains(out, "$sha256$") {
		t.Errorf("%v %s", err, out)
	}
}

// TestE2ETLS is the trial of TLS that the help of `haidang cert` shows, with
// mosquitto's own clients and curl.
func TestE2ETLS(t *testing.T) {
	needPeers(t, "mosquitto_pub", "mosquitto_sub", "curl")
	tlsDir := filepath.Join(t.TempDir(), "tls")
	if code, out, said := command(t, "cert", "selfsigned", "--dir", tlsDir, "--host", "127.0.0.1", "--client", "kim-long"); code != exitWell || !strings.Contains(out, "client_ca") {
		t.Fatalf("%d %s %s", code, out, said)
	}
	at := func(name string) string { return filepath.Join(tlsDir, name) }
	free := freePorts(t, 1)
	g := prepare(t, "")
	text, err := os.ReadFile(filepath.Join(g.dir, "gateway.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pair := "cert: " + at("server.pem") + ", key: " + at("server-key.pem")
	config := strings.Replace(string(text), "broker: {", "broker: {tls: {listen: '"+free[0]+"', "+pair+", client_ca: "+at("ca.pem")+"}, ", 1)
	config = strings.Replace(config, "influx: {", "influx: {tls: {"+pair+"}, ", 1)
	g.write("gateway.yaml", config)
	g.account("", "add", "kim-long", "--role", "station", "--no-secret")
	grafana := g.account("", "add", "grafana", "--role", "reader")
	g.start()
	host, port, _ := net.SplitHostPort(free[0])
	run := func(well bool, name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if (err == nil) != well {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	tls := []string{"-h", host, "-p", port, "--cafile", at("ca.pem"), "-V", "mqttv5"}
	mine := append(tls, "--cert", at("client-kim-long.pem"), "--key", at("client-kim-long-key.pem"))
	run(true, "mosquitto_pub", append(mine, "-q", "1", "-t", "telemetry/kim-long/river", "-m", `{"level_m":3.62}`)...)
	if out := run(true, "mosquitto_sub", append(mine, "-t", "warnings/#", "-C", "1", "-W", "5")...); !strings.Contains(out, `"device":"kim-long"`) {
		t.Errorf("mosquitto_sub: %s", out)
	}
	if out := run(false, "mosquitto_pub", append(tls, "-q", "1", "-t", "telemetry/kim-long/river", "-m", `{"level_m":9}`)...); !strings.Contains(out, "authori") {
		t.Errorf("without a certificate: %s", out)
	}
	if out := run(true, "mosquitto_pub", append(mine, "-q", "1", "-t", "telemetry/phu-oc/river", "-m", `{"level_m":9}`)...); !strings.Contains(out, "Not authorized") {
		t.Errorf("mosquitto_pub says of a publish that was refused: %q", out)
	}
	if out := run(true, "mosquitto_sub", append(mine, "-t", "telemetry/#", "-C", "1", "-W", "2")...); !strings.Contains(out, "denied") {
		t.Errorf("a station reads: %s", out)
	}
	query := []string{"-sS", "--cacert", at("ca.pem"), "-u", "grafana:" + grafana, "-G", "https://" + g.ports.influx + "/query", "-d", "db=haidang", "--data-urlencode", "q=SELECT last(level_m) FROM river"}
	eventually(t, "curl reads it over TLS", 5*time.Second, func() bool { return strings.Contains(run(true, "curl", query...), "3.62") })
}
