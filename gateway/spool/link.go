package spool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Logs, their streams, and buckets.
const (
	logReadings = "readings"
	logWarnings = "warnings"
	logLetters  = "dead_letters"
	logSteps    = "steps" // of parts
	logAttempts = "attempts"

	streamReadings = "READINGS"
	streamWarnings = "WARNINGS"
	streamLetters  = "DEAD_LETTERS"
	streamSteps    = "STEPS"
	streamAttempts = "ATTEMPTS"
	bucketKV       = "POSITIONS"
	bucketObjects  = "CHECKPOINTS"
)

const (
	openPatience = 2 * time.Minute // a cold start reads the whole log once
	askPatience  = 5 * time.Second // one request to JetStream
	healPause    = 2 * time.Second // between two restarts of the embedded server

	serverMaxPayload = 1 << 20
	serverMemory     = 64 << 20 // of streams in memory: only the followers' cursors
	serverStore      = 1 << 50  // no bound of its own: each stream has one
)

// A link is one life of the connection to JetStream. Appending and following
// have a connection each, so that an acknowledgement does not wait behind the
// frames on their way to a follower.
type link struct {
	server  *server.Server // nil with an external cluster
	writing *nats.Conn
	reading *nats.Conn
	append  jetstream.JetStream
	follow  jetstream.JetStream

	// sound ends when the embedded server reports a failed write: JetStream
	// answers no more then, and nobody need wait for it.
	sound context.Context
	spoil context.CancelFunc
	fatal atomic.Pointer[string] // why the embedded server did not start

	unclosed sync.Once // tells that the log was not closed
}

func (s *Spool) openLink(ctx context.Context) (_ *link, err error) {
	l := &link{}
	l.sound, l.spoil = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	address, options := s.options.Config.URL, []nats.Option{nats.Name("haidang"), nats.ErrorHandler(s.asyncError)}
	if address == "" {
		if l.server, err = startServer(s.options.Dir, s.options.Scratch, serverLogger{s.logger, l}); err != nil {
			return nil, err
		}
		if err := l.ready(ctx); err != nil {
			return nil, fmt.Errorf("open the log in %s: %w", s.options.Dir, err)
		}
		options = append(options, nats.InProcessServer(l.server), nats.NoReconnect())
	} else {
		options = append(options, s.options.Config.access(s.connectionName())...)
	}
	watched := options
	if s.cluster != nil {
		watched = s.cluster.watched(slices.Clip(options))
	}
	if l.writing, l.append, err = connect(address, watched); err != nil {
		return nil, err
	}
	if l.reading, l.follow, err = connect(address, options); err != nil {
		return nil, err
	}
	return l, nil
}

// connectionName is how the servers of a cluster show our connections.
func (s *Spool) connectionName() string {
	name := "haidang " + s.options.Gateway
	if s.options.Part != (Part{}) {
		name += " " + s.options.Part.String()
	}
	return name
}

// asyncError hears of what no call returns. A cursor's channel has room for
// just what it asks for, so that now and then a status message overflows it:
// read checks the sequence of each frame and needs no other sign of it.
func (s *Spool) asyncError(_ *nats.Conn, _ *nats.Subscription, err error) {
	if s.cluster != nil {
		s.cluster.refused(err)
	}
	if !errors.Is(err, nats.ErrSlowConsumer) {
		s.logger.Warn("the log's connection", "error", err)
	}
}

func connect(address string, options []nats.Option) (*nats.Conn, jetstream.JetStream, error) {
	conn, err := nats.Connect(address, options...)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to NATS %s: %w", redact(address), err)
	}
	js, err := jetstream.New(conn, jetstream.WithDefaultTimeout(askPatience))
	if err != nil {
		conn.Close()
		return nil, nil, fmt.Errorf("use JetStream of NATS %s: %w", redact(address), err)
	}
	return conn, js, nil
}

func startServer(dir string, scratch bool, logger serverLogger) (*server.Server, error) {
	ns, err := server.NewServer(&server.Options{
		ServerName:             "haidang",
		DontListen:             true,
		NoSigs:                 true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               dir,
		SyncAlways:             !scratch, // without it a power cut loses two minutes of acknowledged frames
		MaxPayload:             serverMaxPayload,
		JetStreamMaxMemory:     serverMemory,
		JetStreamMaxStore:      serverStore,
	})
	if err != nil {
		return nil, fmt.Errorf("make the embedded log in %s: %w", filepath.Join(dir, server.JetStreamStoreDir), err)
	}
	ns.SetLoggerV2(logger, false, false, false)
	go ns.Start()
	return ns, nil
}

// ready waits until the embedded server has read its streams.
func (l *link) ready(ctx context.Context) error {
	deadline := time.Now().Add(openPatience)
	for !l.server.ReadyForConnections(50 * time.Millisecond) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if why := l.fatal.Load(); why != nil {
			return errors.New(*why)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the embedded JetStream is not ready after %s", openPatience)
		}
	}
	if why := l.fatal.Load(); why != nil {
		return errors.New(*why)
	}
	if !l.server.JetStreamEnabled() {
		return errors.New("the embedded JetStream does not start")
	}
	return nil
}

func (l *link) close() {
	if l.writing != nil {
		l.writing.Close()
	}
	if l.reading != nil {
		l.reading.Close()
	}
	if l.server != nil {
		l.server.Shutdown()
		l.server.WaitForShutdown()
	}
	l.spoil()
}

// bytes returns the size of a stream, 0 when there is none.
func (l *link) bytes(ctx context.Context, stream string) int64 {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	st, err := l.append.Stream(ctx, stream)
	if err != nil {
		return 0
	}
	return int64(st.CachedInfo().State.Bytes)
}

// current returns the connection of now.
func (s *Spool) current() *link {
	s.linkMu.Lock()
	defer s.linkMu.Unlock()
	return s.link
}

// heal replaces a connection that does not work by a new one and restarts the
// embedded server: after a failed write JetStream takes no more messages until
// it is opened again (and has everything acknowledged then). It does nothing
// when somebody else has healed already, soon after the last time, while the
// disk is full, and with an external cluster, where the client reconnects.
func (s *Spool) heal(ctx context.Context, broken *link) {
	s.linkMu.Lock()
	defer s.linkMu.Unlock()
	if s.link != broken || s.config.URL != "" || time.Since(s.healedAt) < healPause || s.life.Err() != nil {
		return
	}
	if free, err := freeBytes(s.options.Dir); err == nil && free < s.room.headroom/4 {
		return
	}
	s.healedAt = time.Now()
	s.metrics.restarts.Inc()
	s.logger.Warn("the spool's embedded log does not answer: it is restarted")
	s.link.close()
	fresh, err := s.openLink(ctx)
	if err != nil {
		s.logger.Error("restart of the spool's embedded log", "error", err)
		return // the broken one stays, and is healed again
	}
	s.link = fresh
}

// serverLogger hands on what the embedded server complains about.
type serverLogger struct {
	logger *slog.Logger
	link   *link
}

func (l serverLogger) Noticef(string, ...any) {}
func (l serverLogger) Debugf(string, ...any)  {}
func (l serverLogger) Tracef(string, ...any)  {}

// Warnf tells once, and not for each stream, that the index of a stream is older
// than its messages: so it is after every kill and power cut, and the server
// then reads the messages themselves. (Frames that were lost show as a gap.)
// Should its words change, it is a warning again.
func (l serverLogger) Warnf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if outdatedIndex(text) {
		l.link.unclosed.Do(func() { l.logger.Info("spool: the log was not closed the last time; its end is found by reading it") })
		return
	}
	l.logger.Warn("spool: jetstream: " + text)
}

func outdatedIndex(text string) bool {
	return strings.HasSuffix(text, "Recovering stream state from index errored: prior state file") ||
		strings.Contains(text, "] Stream state outdated, ") ||
		strings.Contains(text, "] Stream state detected prior state, ")
}

// Errorf looks for the message of a failed write. Should its words change,
// requests time out instead, and the same happens ten seconds later.
func (l serverLogger) Errorf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.logger.Error("spool: jetstream: " + text)
	if strings.Contains(strings.ToLower(text), "write error") {
		l.link.spoil()
	}
}

// Fatalf is how the server says that it does not start; ready tells.
func (l serverLogger) Fatalf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.link.fatal.Store(&text)
}
