package influx

import (
	"bytes"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// ask sends one request to the port.
func ask(t *testing.T, method, address string, form url.Values) *http.Response {
	t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	request, err := http.NewRequestWithContext(t.Context(), method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("Origin", "http://evil.example")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

func openPort(t *testing.T, ingest http.Handler) (*Store, string) {
	t.Helper()
	cfg := quiet()
	cfg.Listen = "127.0.0.1:0"
	s := open(t, t.TempDir(), cfg, ingest)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	write(t, s, "river,device=a,site=a level_m=1 1\n")
	return s, run(t, s)
}

func TestPortRefusesWhatChanges(t *testing.T) {
	s, base := openPort(t, nil)
	for _, statement := range []string{
		`DROP DATABASE haidang`,
		`DROP MEASUREMENT river`,
		`DROP SERIES FROM river`,
		`DROP RETENTION POLICY autogen ON haidang`,
		`DROP SHARD 1`,
		`DROP USER u`,
		`DROP CONTINUOUS QUERY q ON haidang`,
		`DROP SUBSCRIPTION s ON haidang.autogen`,
		`DELETE FROM river`,
		`DELETE WHERE time < now()`,
		`CREATE DATABASE other`,
		`CREATE RETENTION POLICY p ON haidang DURATION 1h REPLICATION 1 DEFAULT`,
		`CREATE USER u WITH PASSWORD 'secret' WITH ALL PRIVILEGES`,
		`CREATE CONTINUOUS QUERY q ON haidang BEGIN SELECT mean(level_m) INTO m FROM river GROUP BY time(1h) END`,
		`CREATE SUBSCRIPTION s ON haidang.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'`,
		`ALTER RETENTION POLICY autogen ON haidang DURATION 1h`,
		`SET PASSWORD FOR u = 'secret'`,
		`GRANT ALL TO u`,
		`GRANT READ ON haidang TO u`,
		`REVOKE ALL PRIVILEGES FROM u`,
		`REVOKE READ ON haidang FROM u`,
		`KILL QUERY 1`,
		`SELECT level_m INTO other FROM river`,
		`EXPLAIN ANALYZE SELECT level_m INTO other FROM river`,
		`SELECT level_m FROM river; DROP MEASUREMENT river`,
		`SHOW STATS`,
		`SHOW DIAGNOSTICS`,
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			form := url.Values{"db": {Database}, "q": {statement}}
			var response *http.Response
			if method == http.MethodGet {
				response = ask(t, method, base+"/query?"+form.Encode(), nil)
			} else {
				response = ask(t, method, base+"/query", form)
			}
			message := decodeError(t, response.Body)
			if response.StatusCode != http.StatusForbidden || !strings.Contains(message, "this port only reads") && !strings.Contains(message, "is not served") {
				t.Errorf("%s %s: %s %q", method, statement, response.Status, message)
			}
			if strings.Contains(message, "secret") {
				t.Errorf("%s: the answer repeats the password: %s", statement, message)
			}
		}
	}
	if n := count(t, s, "river", "level_m"); n != 1 {
		t.Errorf("%d points left, want 1", n)
	}
	databases, err := s.Query(t.Context(), "SHOW DATABASES")
	if err != nil || len(databases) != 1 || len(databases[0].Values) != 1 {
		t.Errorf("databases %+v %v", databases, err)
	}
}

func TestPortServesWhatReads(t *testing.T) {
	_, base := openPort(t, nil)
	for statement, want := range map[string]string{
		`SELECT level_m FROM river`:                  `"values":[["1970-01-01T00:00:00.000000001Z",1]]`,
		`SHOW DATABASES`:                             `haidang`,
		`SHOW RETENTION POLICIES ON haidang`:         `autogen`,
		`SHOW MEASUREMENTS`:                          `river`,
		`SHOW TAG KEYS`:                              `device`,
		`SHOW TAG VALUES FROM river WITH KEY = site`: `["site","a"]`,
		`SHOW FIELD KEYS`:                            `["level_m","float"]`,
		`SHOW SERIES`:                                `river,device=a,site=a`,
		`SHOW SHARDS`:                                `haidang`,
		`SHOW QUERIES`:                               `SHOW QUERIES`,
		`SHOW SERIES CARDINALITY`:                    `1`,
		`EXPLAIN SELECT level_m FROM river`:          `QUERY PLAN`,
		`SELECT mean(x) FROM (SELECT max(level_m) AS x FROM river GROUP BY device)`:         `1`,
		`SELECT level_m FROM river; SELECT count(level_m) FROM river WHERE device =~ /^a$/`: `"statement_id":1`,
	} {
		response := ask(t, http.MethodPost, base+"/query", url.Values{"db": {Database}, "q": {statement}})
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) || strings.Contains(string(body), `"error"`) {
			t.Errorf("%s: %s %s", statement, response.Status, body)
		}
		if origin := response.Header.Get("Access-Control-Allow-Origin"); origin != "" {
			t.Errorf("%s: any web page may read this: %s", statement, origin)
		}
	}
}

func TestPortFormsOfAQuery(t *testing.T) {
	_, base := openPort(t, nil)
	body := func(response *http.Response) string {
		b, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	bound := url.Values{"db": {Database}, "epoch": {"ns"}, "q": {"SELECT level_m FROM river WHERE device = $d"}, "params": {`{"d":"a"}`}}
	if got := body(ask(t, "GET", base+"/query?"+bound.Encode(), nil)); !strings.Contains(got, `[[1,1]]`) {
		t.Errorf("bound parameter: %s", got)
	}
	var form bytes.Buffer
	parts := multipart.NewWriter(&form)
	file, err := parts.CreateFormFile("q", "q.influxql")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(file, "DROP MEASUREMENT river")
	parts.Close()
	response, err := http.Post(base+"/query?db=haidang", parts.FormDataContentType(), &form)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusForbidden {
		t.Errorf("DROP in a file: %s", response.Status)
	}
	request, _ := http.NewRequest("GET", base+"/query?db=haidang&q=SHOW+DATABASES", nil)
	request.Header.Set("Accept", "application/csv")
	csv, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer csv.Body.Close()
	if got := body(csv); !strings.HasPrefix(got, "name,tags,name\n") {
		t.Errorf("csv: %q", got)
	}
	deep := url.Values{"db": {Database}, "q": {"SELECT " + strings.Repeat("(", maxStatementBytes-100) + "level_m FROM river"}}
	if response := ask(t, "POST", base+"/query", deep); response.StatusCode != http.StatusBadRequest {
		t.Errorf("deep nesting: %s", response.Status)
	}
}

func TestPortPaths(t *testing.T) {
	_, base := openPort(t, nil)
	for _, c := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/ping", 204},
		{"HEAD", "/ping", 204},
		{"GET", "/health", 200},
		{"DELETE", "/ping", 405},
		{"PUT", "/query", 405},
		{"GET", "/query", 400},
		{"GET", "/query?q=SELEC", 400},
		{"GET", "/query?q=SHOW+DATABASES&params=%7B", 400},
		{"POST", "/query?q=" + strings.Repeat("x", maxStatementBytes+1), 400},
		{"POST", "/write?db=haidang", 403},
		{"POST", "/api/v2/write?bucket=haidang", 403},
		{"GET", "/metrics", 404},
		{"GET", "/debug/vars", 404},
		{"GET", "/debug/pprof/", 404},
		{"GET", "/debug/requests", 404},
		{"GET", "/api/v2/buckets", 404},
		{"POST", "/api/v2/delete", 404},
		{"POST", "/api/v1/prom/write", 404},
		{"POST", "/api/v1/prom/read", 404},
		{"GET", "/", 404},
	} {
		response := ask(t, c.method, base+c.path, nil)
		if response.StatusCode != c.status {
			t.Errorf("%s %.40s: %s, want %d", c.method, c.path, response.Status, c.status)
		}
		if c.status >= 400 && c.method != "HEAD" && decodeError(t, response.Body) == "" {
			t.Errorf("%s %.40s: no error in the body", c.method, c.path)
		}
	}
}

func TestPortHandsWritesToTheIngest(t *testing.T) {
	var seen []string
	s, base := openPort(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, r.URL.Path+" "+string(body))
		w.WriteHeader(http.StatusNoContent)
	}))
	for _, path := range []string{"/write?db=haidang", "/api/v2/write?bucket=haidang&org=x", "/api/v2/write?bucket=haidang/autogen"} {
		response, err := http.Post(base+path, "text/plain", strings.NewReader("river level_m=9 9"))
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusNoContent {
			t.Errorf("%s: %s", path, response.Status)
		}
	}
	if want := "[/write river level_m=9 9 /api/v2/write river level_m=9 9 /api/v2/write river level_m=9 9]"; fmt.Sprint(seen) != want {
		t.Errorf("seen %v", seen)
	}
	for path, want := range map[string]string{
		"/write?db=other":             `404 database not found: "other"`,
		"/write?db=haidang2":          `404 database not found: "haidang2"`,
		"/write?bucket=haidang":       `400 database is required`,
		"/write":                      `400 database is required`,
		"/api/v2/write?bucket=zzz":    `404 database not found: "zzz"`,
		"/api/v2/write?bucket=zzz/rp": `404 database not found: "zzz"`,
		"/api/v2/write?org=haidang":   `400 database is required`,
	} {
		response := ask(t, http.MethodPost, base+path, url.Values{"river": {"9"}})
		got := fmt.Sprintf("%d %s", response.StatusCode, decodeError(t, response.Body))
		if got != want || response.Header.Get("X-Influxdb-Error") == "" {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	if len(seen) != 3 {
		t.Errorf("a write to another database was handed on: %v", seen)
	}
	if n := count(t, s, "river", "level_m"); n != 1 {
		t.Errorf("%d points: the port wrote past the log", n)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	began := time.Now()
	t.Run("port", func(t *testing.T) { openPort(t, nil) })
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("opening and closing took %s", took)
	}
}

// A client that does not send what it has announced is not waited for.
func TestPortOfAWriterThatSendsNothing(t *testing.T) {
	ended := make(chan error, 1)
	cfg := quiet()
	cfg.Listen = "127.0.0.1:0"
	s := open(t, t.TempDir(), cfg, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	}))
	s.patience = 100 * time.Millisecond
	conn, err := net.Dial("tcp", strings.TrimPrefix(run(t, s), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /write?db=haidang HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nriver"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the body is said to be whole")
		}
	case <-time.After(5 * time.Second):
		t.Error("the writer keeps its place")
	}
}

// Clients that stop reading give their places back, and let the engine be opened
// again.
func TestPortOfClientsThatDoNotRead(t *testing.T) {
	cfg := quiet()
	cfg.Listen = "127.0.0.1:0"
	s := open(t, t.TempDir(), cfg, nil)
	s.patience = 300 * time.Millisecond
	var lines strings.Builder
	for i := range 8000 {
		fmt.Fprintf(&lines, "river,device=a,site=a gate_text=\"%0400d\" %d\n", i, i+1)
		if i%4000 == 3999 {
			write(t, s, lines.String())
			lines.Reset()
		}
	}
	base := run(t, s)
	target := strings.TrimPrefix(base, "http://")
	for range maxPortQueries {
		conn, err := net.Dial("tcp", target)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.(*net.TCPConn).SetReadBuffer(4 << 10); err != nil { // or the system takes in megabytes
			t.Fatal(err)
		}
		query := url.Values{"db": {Database}, "chunked": {"true"}, "q": {"SELECT gate_text FROM river"}}
		if _, err := fmt.Fprintf(conn, "GET /query?%s HTTP/1.1\r\nHost: x\r\n\r\n", query.Encode()); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil { // it is being answered
			t.Fatal(err)
		}
	}
	client := &http.Client{Timeout: 20 * time.Second}
	defer client.CloseIdleConnections()
	response, err := client.Get(base + "/query?" + url.Values{"db": {Database}, "q": {"SELECT count(gate_text) FROM river"}}.Encode())
	if err != nil {
		t.Fatalf("a query behind them: %v", err)
	}
	body, _ := io.ReadAll(response.Body)
	response.Body.Close()
	if !strings.Contains(string(body), "8000") {
		t.Errorf("a query behind them: %s", body)
	}
	done := make(chan struct{})
	go func() { defer close(done); s.restart() }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Error("the engine cannot be opened again")
	}
}
