package main

import (
	"fmt"
	"io"
	"log/slog"

	"haidang/gateway/telemetry"
)

// A logConfig says how the gateway's own log is written.
type logConfig struct {
	Format string `yaml:"format"` // text (default) or json, one object a line
	Level  string `yaml:"level"`  // debug, info (default), warn or error
}

// Formats of the log.
const (
	logText = "text"
	logJSON = "json"
)

// level is the least level that is written.
func (c logConfig) level() (slog.Level, error) {
	switch c.Level {
	case "debug":
		return slog.LevelDebug, nil
	case "", "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("level %q is not one of debug, info, warn, error", c.Level)
}

// validate reports what cannot be meant.
func (c logConfig) validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if c.Format != "" && c.Format != logText && c.Format != logJSON {
		faults = append(faults, telemetry.Faultf("format", "format %q is neither %s nor %s", c.Format, logText, logJSON))
	}
	if _, err := c.level(); err != nil {
		faults = append(faults, telemetry.Faultf("level", "%v", err))
	}
	return faults
}

// newLogger writes what an operator should look at.
func newLogger(out io.Writer, c logConfig) *slog.Logger {
	level, err := c.level()
	if err != nil {
		level = slog.LevelInfo // validate has told
	}
	options := &slog.HandlerOptions{Level: level}
	var lines slog.Handler = slog.NewTextHandler(out, options)
	if c.Format == logJSON {
		lines = slog.NewJSONHandler(out, options)
	}
	logger := slog.New(lines)
	slog.SetDefault(logger) // libraries and packages that were given none
	return logger
}
