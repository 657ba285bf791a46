package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// An installation is a release in a scratch root, run as its unit says.
type installation struct {
	gatewayProcess
	root    string
	secrets map[string]string // of accounts, by name
}

// TestE2EInstalled installs a release into a scratch root, runs the unit's own
// command lines, and asks every panel of every installed dashboard as the installed
// data source does, with an account that only reads.
func TestE2EInstalled(t *testing.T) {
	if os.Getenv("HAIDANG_E2E") == "" {
		t.Skip("builds a release; make e2e runs it")
	}
	needPeers(t, "bash", "git", "tar", "mosquitto_pub", "promtool")
	i := install(t)
	notified := i.listen()
	i.launchUnit("ExecStart")
	notified("READY=1")
	notified("WATCHDOG=1")

	host, port, _ := net.SplitHostPort(i.ports.mqtt)
	i.shell("mosquitto_pub", "-h", host, "-p", port, "-u", "kim-long", "-P", i.secrets["kim-long"],
		"-q", "1", "-t", "telemetry/kim-long/river", "-m", `{"level_m":3.62}`)
	i.askPanels()
	i.checkMetrics()

	for _, line := range unitLines(t, i.in("lib/systemd/system/haidang.service"), "ExecReload") {
		if strings.HasPrefix(line, "/bin/kill") {
			line = strings.ReplaceAll(line, "$MAINPID", fmt.Sprint(i.cmd.Process.Pid))
			i.shell(strings.Fields(line)[0], strings.Fields(line)[1:]...)
			continue
		}
		args := i.relocated(line)
		i.shell(args[0], args[1:]...)
	}
	notified("WATCHDOG=1") // it lives on
	if err := i.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	notified("STOPPING=1")
	select {
	case <-i.ended:
	case <-time.After(30 * time.Second): // TimeoutStopSec
		t.Fatalf("it runs 30 s after SIGTERM\n%s", i.output)
	}
	if i.err != nil {
		t.Errorf("it ended with %v\n%s", i.err, i.output)
	}
}

// install builds and installs a release, and writes what the administrator writes.
func install(t *testing.T) *installation {
	t.Helper()
	free := freePorts(t, 3)
	i := &installation{gatewayProcess: gatewayProcess{t: t, dir: t.TempDir(), ports: ports{mqtt: free[0], influx: free[1], console: free[2]}}, root: t.TempDir(), secrets: map[string]string{}}
	build := exec.Command("bash", "../deploy/release", "linux/"+runtime.GOARCH)
	build.Env = append(os.Environ(), "VERSION=v0.0.1-e2e", "DIST="+i.dir)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("release: %v\n%s", err, out)
	}
	name := "haidang-v0.0.1-e2e-linux-" + runtime.GOARCH
	i.shell("tar", "-xzf", filepath.Join(i.dir, name+".tar.gz"), "-C", i.dir)
	i.shell("env", "DESTDIR="+i.root, filepath.Join(i.dir, name, "install"))

	cfg := i.in("etc/haidang/gateway.yaml")
	text, err := os.ReadFile(cfg)
	if err != nil {
		t.Fatal(err)
	}
	// The example itself, on ports that are free here; its instrument is not there.
	text = fmt.Appendf(text, "broker: {listen: %q}\ninflux: {listen: %q}\nconsole: {listen: %q}\nais: []\n", i.ports.mqtt, i.ports.influx, i.ports.console)
	if err := os.WriteFile(cfg, text, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(i.in("etc/haidang/environment"), []byte("IOC_SECRET=0123456789abcdef\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for name, role := range map[string]string{"grafana": "reader", "kim-long": "station"} {
		said := i.shell(i.in("usr/bin/haidang"), "account", "add", name, "--role", role, "--json", "--data", i.in("var/lib/haidang"))
		var answer secretAnswer
		if err := json.Unmarshal([]byte(said), &answer); err != nil || answer.Secret == "" {
			t.Fatalf("account add %s: %v %s", name, err, said)
		}
		i.secrets[name] = answer.Secret
	}
	return i
}

func (i *installation) in(path string) string { return filepath.Join(i.root, path) }

func (i *installation) shell(name string, args ...string) string {
	i.t.Helper()
	cmd := exec.Command(name, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		i.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// unitLines returns the values of a key of a systemd unit.
func unitLines(t testing.TB, unit, key string) (values []string) {
	t.Helper()
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), key+"="); ok {
			values = append(values, value)
		}
	}
	if len(values) == 0 {
		t.Fatalf("%s has no %s", unit, key)
	}
	return values
}

// relocated are the words of a command line, with its paths in the scratch root.
func (i *installation) relocated(line string) []string {
	words := strings.Fields(line)
	for n, word := range words {
		if strings.HasPrefix(word, "/") {
			words[n] = i.in(word)
		}
	}
	return words
}

// launchUnit runs a command line of the unit, with its environment file.
func (i *installation) launchUnit(key string) {
	i.t.Helper()
	unit := i.in("lib/systemd/system/haidang.service")
	line := i.relocated(unitLines(i.t, unit, key)[0])
	i.output = &lockedBuffer{}
	i.cmd = exec.Command(line[0], line[1:]...)
	i.cmd.Dir = "/"
	i.cmd.Env = []string{"NOTIFY_SOCKET=" + filepath.Join(i.dir, "notify"), "WATCHDOG_USEC=2000000"}
	secrets, err := os.ReadFile(i.in(strings.TrimPrefix(unitLines(i.t, unit, "EnvironmentFile")[0], "-")))
	if err != nil {
		i.t.Fatal(err)
	}
	i.cmd.Env = append(i.cmd.Env, strings.Fields(string(secrets))...)
	i.cmd.Stdout, i.cmd.Stderr = i.output, i.output
	if err := i.cmd.Start(); err != nil {
		i.t.Fatal(err)
	}
	i.ended = make(chan struct{})
	go func() { i.err = i.cmd.Wait(); close(i.ended) }()
	i.t.Cleanup(i.kill)
}

// listen is systemd's side of Type=notify: what it returns waits for a word.
func (i *installation) listen() func(word string) {
	i.t.Helper()
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(i.dir, "notify"), Net: "unixgram"})
	if err != nil {
		i.t.Fatal(err)
	}
	i.t.Cleanup(func() { socket.Close() })
	return func(word string) {
		i.t.Helper()
		if err := socket.SetReadDeadline(time.Now().Add(60 * time.Second)); err != nil {
			i.t.Fatal(err)
		}
		datagram := make([]byte, 4096)
		for {
			n, err := socket.Read(datagram)
			if err != nil {
				i.t.Fatalf("systemd was not told %s: %v\n%s", word, err, i.output)
			}
			if slices.Contains(strings.Split(string(datagram[:n]), "\n"), word) {
				return
			}
		}
	}
}

// A grafanaSource is the installed data source as far as Grafana uses it.
type grafanaSource struct {
	URL, Database, BasicAuthUser string
	Secure                       struct {
		Password string `yaml:"basicAuthPassword"`
	} `yaml:"secureJsonData"`
}

// source reads the installed data source with its variables put in.
func (i *installation) source() grafanaSource {
	i.t.Helper()
	text, err := os.ReadFile(i.in("usr/share/haidang/grafana/datasources/haidang.yaml"))
	if err != nil {
		i.t.Fatal(err)
	}
	filled := os.Expand(string(text), func(name string) string {
		return map[string]string{"HAIDANG_GRAFANA_USER": "grafana", "HAIDANG_GRAFANA_SECRET": i.secrets["grafana"]}[name]
	})
	var file struct {
		Datasources []struct {
			grafanaSource `yaml:",inline"`
			BasicAuthUser string `yaml:"basicAuthUser"`
		}
	}
	if err := yaml.Unmarshal([]byte(filled), &file); err != nil || len(file.Datasources) != 1 {
		i.t.Fatalf("the installed data source: %v", err)
	}
	s := file.Datasources[0].grafanaSource
	s.BasicAuthUser = file.Datasources[0].BasicAuthUser
	// Only the port is another one than the default.
	s.URL = strings.Replace(s.URL, "127.0.0.1:8086", i.ports.influx, 1)
	return s
}

// query asks as Grafana does; secret is that of the account.
func (s grafanaSource) query(method, query, secret string) (status int, rows int, said string) {
	request, err := http.NewRequest(method, s.URL+"/query?"+url.Values{"db": {s.Database}, "epoch": {"ms"}, "q": {query}}.Encode(), nil)
	if err != nil {
		return 0, 0, err.Error()
	}
	request.SetBasicAuth(s.BasicAuthUser, secret)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, err.Error()
	}
	defer response.Body.Close()
	var answer struct {
		Error   string
		Results []struct {
			Error  string
			Series []struct{ Values [][]any }
		}
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return response.StatusCode, 0, err.Error()
	}
	said = answer.Error
	for _, r := range answer.Results {
		said += r.Error
		for _, one := range r.Series {
			rows += len(one.Values)
		}
	}
	return response.StatusCode, rows, said
}

// askPanels asks every panel, variable and annotation of the installed dashboards.
// What one station and the gateway itself can fill has rows; nothing is an error.
func (i *installation) askPanels() {
	i.t.Helper()
	s := i.source()
	if status, _, _ := s.query("GET", "SHOW MEASUREMENTS", "wrong"); status != http.StatusUnauthorized {
		i.t.Errorf("a wrong secret is answered with %d", status)
	}
	if _, _, said := s.query("POST", "DROP MEASUREMENT river", s.Secure.Password); said == "" {
		i.t.Error("Grafana's account may drop readings")
	}
	written, err := http.NewRequest("POST", s.URL+"/write?db=haidang", strings.NewReader("river,device=x level_m=1"))
	if err != nil {
		i.t.Fatal(err)
	}
	written.SetBasicAuth(s.BasicAuthUser, s.Secure.Password)
	response, err := http.DefaultClient.Do(written)
	if err != nil {
		i.t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		i.t.Errorf("Grafana's account writes: %s", response.Status)
	}
	eventually(i.t, "the gateway's own figures are in the store", 30*time.Second, func() bool {
		_, rows, _ := s.query("GET", `SELECT last("ready") FROM "haidang_gateway"`, s.Secure.Password)
		return rows > 0
	})
	queries := i.queries()
	full := 0
	for name, query := range queries {
		status, rows, said := s.query("GET", query, s.Secure.Password)
		if status != http.StatusOK || said != "" {
			i.t.Errorf("%s: %d %s: %s", name, status, said, query)
		}
		full += min(rows, 1)
		for _, filled := range []string{"Mực nước và báo động", "Mực nước mới nhất", "Cảnh báo đang hiệu lực", "Tình trạng", "Bộ nhớ", "Độ trễ của bên đọc"} {
			if strings.Contains(name, filled) && rows == 0 {
				i.t.Errorf("%s shows nothing: %s", name, query)
			}
		}
	}
	i.t.Logf("%d queries, %d with rows", len(queries), full)
	if len(queries) < 100 {
		i.t.Errorf("only %d queries were found", len(queries))
	}
}

// checkMetrics has Prometheus' own tool look at /metrics.
func (i *installation) checkMetrics() {
	i.t.Helper()
	if status, _ := i.ask("GET", "http://"+i.ports.console+"/metrics", "", "", ""); status != http.StatusUnauthorized {
		i.t.Errorf("/metrics without an account: %d", status)
	}
	status, text := i.ask("GET", "http://"+i.ports.console+"/metrics", "grafana", i.secrets["grafana"], "")
	if status != http.StatusOK {
		i.t.Fatalf("/metrics: %d %s", status, text)
	}
	promtool := exec.Command("promtool", "check", "metrics")
	promtool.Stdin = strings.NewReader(text)
	if out, err := promtool.CombinedOutput(); err != nil || len(out) > 0 {
		i.t.Errorf("promtool check metrics: %v\n%s", err, out)
	}
}

// queries are those of the installed dashboards by where they are, with everything
// chosen.
func (i *installation) queries() map[string]string {
	i.t.Helper()
	files, err := filepath.Glob(i.in("usr/share/haidang/grafana/dashboards/haidang/*.json"))
	if err != nil || len(files) != 6 {
		i.t.Fatalf("%d dashboards: %v", len(files), err)
	}
	out := map[string]string{}
	now := time.Now()
	values := strings.NewReplacer("$timeFilter", fmt.Sprintf("time >= %dms and time <= %dms", now.Add(-time.Hour).UnixMilli(), now.UnixMilli()),
		"${__from}", fmt.Sprint(now.Add(-time.Hour).UnixMilli()), "${__to}", fmt.Sprint(now.UnixMilli()), "$__interval", "10s", "$severity", "1")
	anything := regexp.MustCompile(`/\^\$[a-z]+\$/`)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			i.t.Fatal(err)
		}
		var board struct {
			Panels []struct {
				Title   string
				Targets []struct{ RefID, Query string }
			}
			Templating struct {
				List []struct{ Name, Type, Query string }
			}
			Annotations struct {
				List []struct{ Target struct{ Query string } }
			}
		}
		if err := json.Unmarshal(text, &board); err != nil {
			i.t.Fatal(err)
		}
		add := func(name, query string) {
			out[filepath.Base(file)+", "+name] = values.Replace(anything.ReplaceAllString(query, "/^.*$/"))
		}
		for _, p := range board.Panels {
			for _, target := range p.Targets {
				add(p.Title+" "+target.RefID, target.Query)
			}
		}
		for _, v := range board.Templating.List {
			if v.Type == "query" {
				add("variable "+v.Name, v.Query)
			}
		}
		for _, a := range board.Annotations.List {
			add("annotation", a.Target.Query)
		}
	}
	return out
}
