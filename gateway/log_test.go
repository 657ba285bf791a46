package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"
)

func TestLogger(t *testing.T) {
	before := slog.Default()
	defer slog.SetDefault(before)
	for _, c := range []struct {
		cfg     logConfig
		written []string // of debug, info, warn, error
	}{
		{logConfig{}, []string{"info", "warn", "error"}},
		{logConfig{Format: logJSON, Level: "debug"}, []string{"debug", "info", "warn", "error"}},
		{logConfig{Format: logJSON, Level: "warn"}, []string{"warn", "error"}},
		{logConfig{Format: logText, Level: "error"}, []string{"error"}},
	} {
		var out bytes.Buffer
		logger := newLogger(&out, c.cfg)
		logger.Debug("debug", "device", "kim-long")
		logger.Info("info", "device", "kim-long")
		logger.Warn("warn", "device", "kim-long")
		logger.Error("error", "device", "kim-long")
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if len(lines) != len(c.written) {
			t.Errorf("%+v wrote\n%s", c.cfg, &out)
			continue
		}
		for i, line := range lines {
			text := "msg=" + c.written[i] + " device=kim-long"
			if c.cfg.Format != logJSON && !strings.Contains(line, text) {
				t.Errorf("%+v wrote %s, want %s", c.cfg, line, text)
			}
			var object map[string]any
			if err := json.Unmarshal([]byte(line), &object); c.cfg.Format == logJSON && (err != nil || object["msg"] != c.written[i] || object["device"] != "kim-long" || object["time"] == nil) {
				t.Errorf("%+v wrote %s: %v", c.cfg, line, err)
			}
		}
	}
}
