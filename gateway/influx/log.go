package influx

import (
	"context"
	"log/slog"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// engineLog is the logger that the engine gets: its warnings and errors go to
// log, the rest, which tells of normal operation, nowhere.
func engineLog(log *slog.Logger) *zap.Logger {
	return zap.New(bridge{log: log.With("in", "influx")})
}

type bridge struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (bridge) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

func (b bridge) With(fields []zapcore.Field) zapcore.Core {
	b.fields = append(b.fields[:len(b.fields):len(b.fields)], fields...)
	return b
}

func (b bridge) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(entry.Level) {
		return checked.AddCore(entry, b)
	}
	return checked
}

func (b bridge) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelWarn
	if entry.Level > zapcore.WarnLevel {
		level = slog.LevelError
	}
	ctx := context.Background()
	if !b.log.Enabled(ctx, level) {
		return nil
	}
	attrs := zapcore.NewMapObjectEncoder()
	for _, f := range b.fields {
		f.AddTo(attrs)
	}
	for _, f := range fields {
		f.AddTo(attrs)
	}
	record := slog.NewRecord(time.Now(), level, entry.Message, 0)
	for key, value := range attrs.Fields {
		record.AddAttrs(slog.Any(key, value))
	}
	return b.log.Handler().Handle(ctx, record)
}

func (bridge) Sync() error { return nil }
