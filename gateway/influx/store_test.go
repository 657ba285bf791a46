package influx

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"haidang/gateway/telemetry"
)

// quiet returns the configuration of the tests: embedded, a port that the
// system chooses.
func quiet() Config {
	cfg := DefaultConfig()
	cfg.Listen = Off
	cfg.MinFree = 1
	return cfg
}

// open opens an embedded store in dir and closes it with the test.
func open(t testing.TB, dir string, cfg Config, ingest http.Handler) *Store {
	t.Helper()
	s, err := Open(dir, cfg, prometheus.NewRegistry(), ingest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// run runs the store and returns the URL of its port.
func run(t testing.TB, s *Store) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	if s.Addr() == nil {
		return ""
	}
	return "http://" + s.Addr().String()
}

func write(t testing.TB, s *Store, lines string) {
	t.Helper()
	if err := s.Write(t.Context(), []byte(lines)); err != nil {
		t.Fatal(err)
	}
}

// requests is how many write requests the store has made.
func requests(t testing.TB, s *Store) int {
	t.Helper()
	var m dto.Metric
	if err := s.metrics.writeSeconds.Write(&m); err != nil {
		t.Fatal(err)
	}
	return int(m.GetHistogram().GetSampleCount())
}

// count returns SELECT count(field) FROM kind.
func count(t testing.TB, s *Store, kind, field string) int {
	t.Helper()
	got, err := s.Query(t.Context(), fmt.Sprintf(`SELECT count(%q) FROM %q`, field, kind))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) == 0 {
		return 0
	}
	n, _ := got[0].Number(0, "count")
	return int(n)
}

func TestWriteAndQueryOverThePort(t *testing.T) {
	cfg := quiet()
	cfg.Listen = "127.0.0.1:0"
	s := open(t, t.TempDir(), cfg, nil)
	base := run(t, s)
	write(t, s, `river,device=kim-long,site=kim-long level_m=3.5,quality="good" 1761566400000000000
river,device=kim-long,site=kim-long level_m=3.62,quality="good" 1761570000000000000
river,device=phu-oc,site=phu-oc level_m=2.1,quality="good" 1761570000000000000
`)
	// Exactly as the README shows it with curl.
	response, err := http.Get(base + "/query?db=haidang&q=" + url.QueryEscape("SELECT last(level_m) FROM river GROUP BY device"))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"results":[{"statement_id":0,"series":[` +
		`{"name":"river","tags":{"device":"kim-long"},"columns":["time","last"],"values":[["2025-10-27T13:00:00Z",3.62]]},` +
		`{"name":"river","tags":{"device":"phu-oc"},"columns":["time","last"],"values":[["2025-10-27T13:00:00Z",2.1]]}]}]}` + "\n"
	if string(body) != want {
		t.Errorf("got  %s\nwant %s", body, want)
	}
	if v := response.Header.Get("X-Influxdb-Version"); v != engineVersion {
		t.Errorf("version %q", v)
	}
	// And by the reader.
	series, err := s.Query(t.Context(), "SELECT level_m, quality FROM river WHERE device = 'kim-long'")
	if err != nil {
		t.Fatal(err)
	}
	if len(series) != 1 || len(series[0].Values) != 2 {
		t.Fatalf("got %+v", series)
	}
	if level, ok := series[0].Number(1, "level_m"); !ok || level != 3.62 {
		t.Errorf("level %v %v", level, ok)
	}
	if at := series[0].Time(1).UTC(); !at.Equal(time.Date(2025, 10, 27, 13, 0, 0, 0, time.UTC)) {
		t.Errorf("time %v", at)
	}
	if q := series[0].Text(1, "quality"); q != "good" {
		t.Errorf("quality %q", q)
	}
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready: %v", err)
	}
}

func TestSameSeriesAndTimeOverwrites(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	for _, level := range []string{"1", "2", "3.5"} {
		write(t, s, "river,device=a,site=a level_m="+level+" 1000000000\n")
	}
	got, err := s.Query(t.Context(), "SELECT level_m FROM river")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || len(got[0].Values) != 1 {
		t.Fatalf("got %+v", got)
	}
	if level, _ := got[0].Number(0, "level_m"); level != 3.5 {
		t.Errorf("level %v, want the last one", level)
	}
}

func TestRefusedLinesNeverBlockTheRest(t *testing.T) {
	reg := prometheus.NewRegistry()
	s, err := Open(t.TempDir(), quiet(), reg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write(t, s, "river,device=a,site=a level_m=1 1\n")
	var text bytes.Buffer
	bad := map[int]string{17: ReasonTypeConflict, 2500: ReasonUnparsable, 4999: ReasonTypeConflict, 5001: ReasonTypeConflict}
	const lines = 6000
	for i := range lines {
		switch bad[i] {
		case ReasonTypeConflict:
			fmt.Fprintf(&text, "river,device=a,site=a level_m=\"high\" %d\n", 1000+i)
		case ReasonUnparsable:
			fmt.Fprintf(&text, "river,device=a,site=a level_m= %d\n", 1000+i)
		default:
			// Over several shard groups: the engine answers for the first that refuses.
			fmt.Fprintf(&text, "river,device=a,site=a level_m=%d %d\n", i, 1000+int64(i)+int64(i%4)*1_000_000_000_000_000)
		}
	}
	err = s.Write(t.Context(), text.Bytes())
	var no *telemetry.Rejection
	if !errors.As(err, &no) {
		t.Fatalf("got %v, want a rejection", err)
	}
	got := map[int]string{}
	for _, r := range no.Records {
		got[r.Index] = r.Reason
		if r.Detail == "" {
			t.Errorf("record %d has no detail", r.Index)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(bad) {
		t.Errorf("rejected %v, want %v", got, bad)
	}
	if n := count(t, s, "river", "level_m"); n != lines-len(bad)+1 {
		t.Errorf("%d points stored, want %d", n, lines-len(bad)+1)
	}
	want := `
# HELP haidang_influx_points_rejected_total Points refused by InfluxDB and set aside, by reason.
# TYPE haidang_influx_points_rejected_total counter
haidang_influx_points_rejected_total{reason="type_conflict"} 3
haidang_influx_points_rejected_total{reason="unparsable"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "haidang_influx_points_rejected_total"); err != nil {
		t.Error(err)
	}
}

func TestWholeBatchRefusedInOneRequest(t *testing.T) {
	cfg := quiet()
	cfg.Retention = Retention{RetentionDefault: telemetry.Duration(24 * time.Hour)}
	s := open(t, t.TempDir(), cfg, nil)
	var text bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&text, "river,device=a,site=a level_m=1 %d\n", 1+i)
	}
	err := s.Write(t.Context(), text.Bytes())
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 5000 || no.Records[4999].Index != 4999 || no.Records[0].Reason != ReasonTooOld {
		t.Fatalf("got %v", err)
	}
	if n := requests(t, s); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestWordsInALineAreNotTakenForTheAnswer(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	err := s.Write(t.Context(), []byte("river,device=a level_m=1 1\nriver,device=a level_m=2,note_text=partial write: dropped=2 2\n"))
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 1 || no.Records[0].Index != 1 || no.Records[0].Reason != ReasonUnparsable {
		t.Errorf("got %v", err)
	}
	if n := count(t, s, "river", "level_m"); n != 1 {
		t.Errorf("%d points", n)
	}
}

func TestControlRecordsAreNotStored(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	err := s.Write(t.Context(), []byte("_tick at=1 1\n\nriver,device=a level_m=1 1\n_start down_s=2 2\nriver,device=a level_m= 2\n"))
	var no *telemetry.Rejection
	if !errors.As(err, &no) || len(no.Records) != 1 || no.Records[0].Index != 3 {
		t.Fatalf("got %v, want line 3 rejected", err)
	}
	got, err := s.Query(t.Context(), "SHOW MEASUREMENTS")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || len(got[0].Values) != 1 || got[0].Text(0, "name") != "river" {
		t.Errorf("measurements %+v", got)
	}
}

func TestReopenKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, "river,device=a,site=a level_m=1 1\nriver,device=a,site=a level_m=2 2\n")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Write(t.Context(), []byte("river level_m=1 1")); !errors.Is(err, ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if _, err := s.Query(t.Context(), "SHOW DATABASES"); !errors.Is(err, ErrClosed) {
		t.Errorf("query after close: %v", err)
	}
	if n := count(t, open(t, dir, quiet(), nil), "river", "level_m"); n != 2 {
		t.Errorf("%d points after reopening", n)
	}
}

func TestSecondOpenerGetsOneClearLine(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "influx")
	open(t, dir, quiet(), nil)
	_, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
	want := fmt.Sprintf("%s is in use by another haidang (pid %d)", dir, os.Getpid())
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestOccupiedPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg := quiet()
	cfg.Listen = taken.Addr().String()
	dir := t.TempDir()
	_, err = Open(dir, cfg, prometheus.NewRegistry(), nil)
	if err == nil || !strings.Contains(err.Error(), cfg.Listen) || !strings.Contains(err.Error(), "is in use by another program") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
	open(t, dir, quiet(), nil) // the folder was not left locked
}

func TestUnwritableFolder(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Open(filepath.Join(file, "influx"), quiet(), prometheus.NewRegistry(), nil)
	if err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("got %v", err)
	}
}

func TestQueryEndsWhenItsReaderLeaves(t *testing.T) {
	s := open(t, t.TempDir(), quiet(), nil)
	var text bytes.Buffer
	for i := range 30_000 {
		fmt.Fprintf(&text, "river,device=a,site=a level_m=%d %d\n", i, i+1)
	}
	write(t, s, text.String())
	enough := errors.New("enough")
	parts := 0
	err := s.Each(t.Context(), "SELECT level_m FROM river", func(part *Series) error {
		if parts++; len(part.Values) != chunkRows {
			t.Errorf("part of %d rows", len(part.Values))
		}
		return enough
	})
	if !errors.Is(err, enough) || parts != 1 {
		t.Errorf("got %v after %d parts", err, parts)
	}
	all, err := s.Query(t.Context(), "SELECT level_m FROM river")
	if err != nil || len(all) != 1 || len(all[0].Values) != 30_000 {
		t.Fatalf("got %d series, %v", len(all), err)
	}
	if level, _ := all[0].Number(29_999, "level_m"); level != 29_999 {
		t.Errorf("last row %v", level)
	}
	twice, err := s.Query(t.Context(), "SELECT level_m FROM river LIMIT 1; SELECT level_m FROM river LIMIT 2")
	if err != nil || len(twice) != 2 || len(twice[0].Values) != 1 || len(twice[1].Values) != 2 {
		t.Errorf("two statements: %+v, %v", twice, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Query(ctx, "SELECT level_m FROM river"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled query: %v", err)
	}
	for _, q := range []string{"SELEC", "SELECT count(level_m) FROM river WHERE time > 0 GROUP BY time(1ns)"} {
		if _, err := s.Query(t.Context(), q); err == nil || !strings.Contains(err.Error(), q) {
			t.Errorf("%s: %v", q, err)
		}
	}
}

func TestNormalOperationIsSilent(t *testing.T) {
	var text bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&text, nil)))
	defer slog.SetDefault(before)
	dir := t.TempDir()
	for range 2 {
		s, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
		if err != nil {
			t.Fatal(err)
		}
		write(t, s, "river,device=a,site=a level_m=1 1\n")
		if err := s.expire(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := s.watchDisk(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if text.Len() > 0 {
		t.Errorf("logged %s", text.String())
	}
}

// TestMain is also the child of TestAcknowledgedPointsSurviveKill.
func TestMain(m *testing.M) {
	if dir := os.Getenv("HAIDANG_INFLUX_WRITER"); dir != "" {
		os.Exit(writeForever(dir))
	}
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if left := leaked(); left != "" && code == 0 {
		fmt.Println("goroutines left:\n" + left)
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of goroutines of ours and of the engine that do not
// end within a while.
func leaked() string {
	stacks := make([]byte, 1<<20)
	left := ""
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		left = ""
		for _, stack := range strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")[1:] {
			if strings.Contains(stack, "haidang/") || strings.Contains(stack, "influxdata/") {
				left += stack + "\n\n"
			}
		}
		if left == "" {
			break
		}
	}
	return left
}

// writeForever writes numbered points and prints the number of each batch that
// was acknowledged, until it is killed.
func writeForever(dir string) int {
	s, err := Open(dir, quiet(), prometheus.NewRegistry(), nil)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	from, _ := strconv.Atoi(os.Getenv("HAIDANG_INFLUX_FROM"))
	for n := from; ; n++ {
		var text bytes.Buffer
		for i := range 20 {
			fmt.Fprintf(&text, "river,device=d%d,site=a n=%d %d\n", i, n, 1_700_000_000_000_000_000+int64(n))
		}
		if err := s.Write(context.Background(), text.Bytes()); err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println(n)
	}
}

func decodeError(t *testing.T, body io.Reader) string {
	t.Helper()
	var a struct{ Error string }
	if err := json.NewDecoder(body).Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a.Error
}
