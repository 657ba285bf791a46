package influx

import (
	"bytes"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

const day = telemetry.Duration(24 * time.Hour)

// writeDays writes one point of each kind a day, for so many days back.
func writeDays(t testing.TB, s *Store, now time.Time, days int, kinds ...string) {
	t.Helper()
	text := ""
	for i := range days {
		for _, kind := range kinds {
			text += fmt.Sprintf("%s,device=a,site=a v=%d %d\n", kind, i, now.Add(-time.Duration(i)*24*time.Hour).UnixNano())
		}
	}
	write(t, s, text)
}

func TestRetentionByKind(t *testing.T) {
	for _, c := range []struct {
		name      string
		retention Retention
		want      map[string]int // days left of 60
	}{
		{"everything is kept", nil, map[string]int{"river": 60, "position": 60, `we"ird`: 60}},
		{"one kind shorter", Retention{"position": 10 * day}, map[string]int{"river": 60, "position": 10, `we"ird`: 60}},
		{"one kind longer", Retention{RetentionDefault: 20 * day, "position": 40 * day}, map[string]int{"river": 20, "position": 40, `we"ird`: 20}},
		{"one kind for ever", Retention{RetentionDefault: 20 * day, "position": 0}, map[string]int{"river": 20, "position": 60, `we"ird`: 20}},
	} {
		t.Run(c.name, func(t *testing.T) {
			now := time.Now().Truncate(time.Hour)
			dir := t.TempDir()
			s := open(t, dir, quiet(), nil)
			writeDays(t, s, now, 60, "river", "position", `we"ird`)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			cfg := quiet()
			cfg.Retention = c.retention
			s = open(t, dir, cfg, nil)
			if err := s.expire(t.Context(), now.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			deletes := testutil.ToFloat64(s.metrics.deleted)
			if err := s.expire(t.Context(), now.Add(2*time.Minute)); err != nil {
				t.Fatal(err)
			}
			if again := testutil.ToFloat64(s.metrics.deleted); again != deletes {
				t.Errorf("deleted %v times within the hour, want %v", again, deletes)
			}
			for kind, want := range c.want {
				// A shard group goes only when all of it is too old.
				if got := count(t, s, kind, "v"); got < want || got > want+7 || len(c.retention) < 2 && got > want+1 {
					t.Errorf("%d days of %s left, want %d", got, kind, want)
				}
			}
		})
	}
}

func TestRetentionMayChange(t *testing.T) {
	dir := t.TempDir()
	for _, keep := range []telemetry.Duration{0, 400 * day, 30 * day, 1100 * day, 0} {
		cfg := quiet()
		if keep > 0 {
			cfg.Retention = Retention{RetentionDefault: keep}
		}
		s, err := Open(dir, cfg, nil, nil)
		if err != nil {
			t.Fatalf("retention %s: %v", keep, err)
		}
		rp, err := s.engine.meta.RetentionPolicy(Database, policy)
		if err != nil || rp.Duration != keep.Std() {
			t.Errorf("retention %s: policy has %v %v", keep, rp.Duration, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWatermarkDropsTheOldest(t *testing.T) {
	cfg := quiet()
	cfg.MinFree = 1000
	s := open(t, t.TempDir(), cfg, nil)
	var said bytes.Buffer
	s.log = slog.New(slog.NewTextHandler(&said, nil))
	now := time.Now()
	writeDays(t, s, now, 60, "river")
	groups := s.engine.store.ShardN()
	// Each dropped shard group gives 100 bytes back; 700 are free at first.
	s.space = func(string) (uint64, uint64, error) {
		return 700 + 100*uint64(groups-s.engine.store.ShardN()), 1 << 40, nil
	}
	if err := s.watchDisk(t.Context(), now); err != nil {
		t.Fatal(err)
	}
	if left := s.engine.store.ShardN(); left != groups-3 {
		t.Errorf("%d of %d shards left, want 3 dropped", left, groups)
	}
	if n := strings.Count(said.String(), "dropped the oldest readings"); n != 3 {
		t.Errorf("%d warnings for 3 drops: %s", n, said.String())
	}
	if n := testutil.ToFloat64(s.metrics.dropped); n != 3 {
		t.Errorf("%v drops counted", n)
	}
	got, err := s.Query(t.Context(), "SELECT v FROM river ORDER BY time DESC")
	if err != nil {
		t.Fatal(err)
	}
	for row := range got[0].Values {
		if v, _ := got[0].Number(row, "v"); int(v) != row {
			t.Fatalf("row %d is day %v: not the oldest went", row, v)
		}
	}
	// However full the disk is, the shard that is being written stays.
	s.space = func(string) (uint64, uint64, error) { return 0, 1 << 40, nil }
	for range 2 {
		if err := s.watchDisk(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(said.String(), "nothing old to drop"); n != 1 {
		t.Errorf("said %d times that nothing is left to drop, want once", n)
	}
	if n := count(t, s, "river", "v"); n == 0 {
		t.Error("the newest readings were dropped")
	}
	write(t, s, fmt.Sprintf("river,device=a,site=a v=1 %d\n", now.Add(-100*24*time.Hour).UnixNano()))
}

func TestDefaultWatermark(t *testing.T) {
	s := &Store{}
	for total, want := range map[uint64]uint64{8 << 30: 8 << 30 / 20, 1 << 40: 1 << 30} {
		if got := s.watermark(total); got != want {
			t.Errorf("watermark of %d is %d, want %d", total, got, want)
		}
	}
}

func TestConfigFaults(t *testing.T) {
	if faults := DefaultConfig().Validate(); len(faults) > 0 {
		t.Errorf("the default configuration has faults: %v", faults)
	}
	for path, change := range map[string]func(*Config){
		"listen":             func(c *Config) { c.Listen = "8086" },
		"url":                func(c *Config) { c.URL = "influx:8086" },
		"bucket":             func(c *Config) { c.URL, c.Bucket = "http://influx:8086", "" },
		"cache":              func(c *Config) { c.Cache = 1 << 20 },
		"timeout":            func(c *Config) { c.Timeout = 0 },
		"min_free":           func(c *Config) { c.MinFree = -1 },
		"retention":          func(c *Config) { c.URL, c.Retention = "http://influx:8086", Retention{"river": day} },
		"retention.river":    func(c *Config) { c.Retention = Retention{"river": day / 2} },
		"retention.a/b":      func(c *Config) { c.Retention = Retention{"a/b": day} },
		"retention.position": func(c *Config) { c.Retention = Retention{"position": -day} },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		faults := cfg.Validate()
		if len(faults) != 1 || faults[0].Path != path {
			t.Errorf("%s: got %v", path, faults)
		}
	}
	cfg := DefaultConfig()
	cfg.Token = "t"
	if faults := cfg.Validate(); len(faults) != 1 || faults[0].Path != "url" {
		t.Errorf("token without url: %v", faults)
	}
}

func TestListen(t *testing.T) {
	for address, want := range map[string]string{
		Off:               "",
		"127.0.0.1:8086":  "",
		"localhost:0":     "",
		"[::1]:8086":      "",
		"8086":            `listen: listen "8086" is not host:port, as 127.0.0.1:8086, or off`,
		"127.0.0.1:70000": `listen: port "70000" is not in 0..65535`,
		":8086":           `listen: address ":8086" is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with ` + "`haidang account add`" + `, or use 127.0.0.1:8086`,
		"0.0.0.0:8086":    `listen: address "0.0.0.0:8086" is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with ` + "`haidang account add`" + `, or use 127.0.0.1:8086`,
		"[::]:9086":       `listen: address "[::]:9086" is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with ` + "`haidang account add`" + `, or use 127.0.0.1:9086`,
		"192.168.1.5:1":   `listen: address "192.168.1.5:1" is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with ` + "`haidang account add`" + `, or use 127.0.0.1:1`,
		"gauges.vn:8086":  `listen: address "gauges.vn:8086" is not on loopback, and there are no accounts: anyone who reaches it could read and write every reading; make one with ` + "`haidang account add`" + `, or use 127.0.0.1:8086`,
	} {
		cfg := DefaultConfig()
		cfg.Listen = address
		var got []string
		for _, f := range append(cfg.Validate(), cfg.Exposed()...) {
			got = append(got, f.String())
		}
		if strings.Join(got, ";") != want {
			t.Errorf("%s\n got %s\nwant %s", address, strings.Join(got, ";"), want)
		}
	}
	elsewhere := DefaultConfig()
	elsewhere.URL, elsewhere.Listen = "http://influx:8086", ":8086"
	if faults := append(elsewhere.Validate(), elsewhere.Exposed()...); len(faults) > 0 {
		t.Errorf("nothing is listened on, and yet: %v", faults)
	}
}

func TestConfigFromYAML(t *testing.T) {
	cfg := DefaultConfig()
	decoder := yaml.NewDecoder(strings.NewReader("{listen: 127.0.0.1:9086, retention: {default: 400d, position: 1100d}, min_free: 2GiB, cache: 32MiB}"))
	decoder.KnownFields(true)
	if err := decoder.Decode(&cfg); err != nil {
		t.Fatal(err)
	}
	if faults := cfg.Validate(); len(faults) > 0 {
		t.Error(faults)
	}
	want := DefaultConfig()
	want.Listen, want.MinFree, want.Cache = "127.0.0.1:9086", 2<<30, 32<<20
	want.Retention = Retention{RetentionDefault: 400 * day, "position": 1100 * day}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
	if got := cfg.Retention.longest(); got != (1100 * day).Std() {
		t.Errorf("longest %s", got)
	}
}
