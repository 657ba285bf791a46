package influx

import (
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestSnapshot: an engine opened on a snapshot has what was written before it,
// also while more is being written, and nothing was flushed for it.
func TestSnapshot(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Listen = Off
	s, err := Open(t.TempDir(), cfg, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	var lines strings.Builder
	for n := range 3 {
		lines.Reset()
		for i := range 1000 {
			lines.WriteString("river,device=d,site=d level_m=1,quality=\"good\" ")
			lines.WriteString(strconv.FormatInt(1_700_000_000_000_000_000+int64(n*1000+i), 10) + "\n")
		}
		if err := s.Write(ctx, []byte(lines.String())); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		err := s.Snapshot(func(name string, content io.ReadCloser, size int64) {
			defer content.Close()
			path := filepath.Join(dir, filepath.FromSlash(name))
			text, err := io.ReadAll(io.LimitReader(content, size))
			if err == nil {
				err = os.MkdirAll(filepath.Dir(path), 0o750)
			}
			if err == nil {
				err = os.WriteFile(path, text, 0o600)
			}
			if err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		other, err := Open(dir, cfg, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		series, err := other.Query(ctx, "SELECT count(level_m) FROM river")
		if err != nil || len(series) != 1 {
			t.Fatalf("%v, %v", series, err)
		}
		if count, _ := series[0].Number(0, "count"); int(count) != (n+1)*1000 {
			t.Errorf("the copy has %v points, want %d", count, (n+1)*1000)
		}
		if err := other.Close(); err != nil {
			t.Error(err)
		}
	}
}
