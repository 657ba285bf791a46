package spool

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// at makes open open the log in a cluster.
func at(config Config) func(*Options) {
	return func(o *Options) {
		o.Config, o.Gateway, o.leaseLife, o.Waiting = config, "kim-long-box", 3*time.Second, func(error) {}
	}
}

// refusal opens a log that cannot be opened and returns why.
func refusal(t *testing.T, dir string, config Config) string {
	t.Helper()
	s, err := Open(t.Context(), Options{Dir: dir, Config: config, Gateway: "kim-long-box", Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		shut(t, s)
		t.Fatal("it was opened")
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), config.Password) && config.Password != "" {
		t.Errorf("the reason has more than a line, or a password: %v", err)
	}
	return err.Error()
}

func wantIn(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q does not tell %q", text, part)
		}
	}
}

// TestClusterRefuses: whatever keeps the log out of a cluster is told in one line.
func TestClusterRefuses(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "alone", 1, `no_auth_user: log0`)
	t.Run("nobody there", func(t *testing.T) {
		wantIn(t, refusal(t, t.TempDir(), Config{URL: "nats://127.0.0.1:1"}), "nats://127.0.0.1:1", "no server of the cluster can be reached")
	})
	t.Run("credentials", func(t *testing.T) {
		config := c.config(1)
		config.Password = "stolen"
		wantIn(t, refusal(t, t.TempDir(), config), "refuses spool.credentials, or user and password")
	})
	t.Run("credentials missing", func(t *testing.T) {
		config := c.config(1)
		config.User, config.Password, config.Credentials = "", "", "/nowhere/box.creds"
		wantIn(t, refusal(t, t.TempDir(), config), "/nowhere/box.creds", "no such file")
	})
	t.Run("replicas", func(t *testing.T) {
		config := c.config(1)
		config.Replicas = 3
		wantIn(t, refusal(t, t.TempDir(), config), "make stream OWNERS", "3 replicas")
	})
	t.Run("no JetStream", func(t *testing.T) {
		plain := startCluster(t, "plain", 1, `accounts: {bare: {users: [{user: bare, password: secret}]}}`)
		config := plain.config(1)
		config.User = "bare"
		wantIn(t, refusal(t, t.TempDir(), config), "no JetStream")
	})
	t.Run("no room", func(t *testing.T) {
		small := startCluster(t, "small", 1, `jetstream: {store_dir: "`+t.TempDir()+`", max_file_store: 100MB}`)
		wantIn(t, refusal(t, t.TempDir(), small.config(1)), "no room", "spool.max_bytes")
	})
	t.Run("too old", func(t *testing.T) {
		old := forward(t, c.ports[0])
		old.change = func(text []byte) []byte {
			return []byte(strings.Replace(string(text), `"version":"2.15.2"`, `"version":"2.9.25"`, 1))
		}
		config := c.config(1)
		config.URL = old.url()
		wantIn(t, refusal(t, t.TempDir(), config), "version 2.9.25", "2.11 or newer")
	})
}

// TestForeignStreams: a stream that somebody else made otherwise is left alone.
func TestForeignStreams(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "foreign", 1)
	right := func(config Config) jetstream.StreamConfig {
		return streamConfig(config.withDefaults(0), readingsPlace(0, 1))
	}
	for i, one := range []struct {
		what   string
		change func(*jetstream.StreamConfig)
		want   []string
	}{
		{"subjects", func(s *jetstream.StreamConfig) { s.Subjects = []string{"telemetry.>"} }, []string{"subjects is [telemetry.>] and must be [readings.*]"}},
		{"retention", func(s *jetstream.StreamConfig) { s.Retention = jetstream.WorkQueuePolicy }, []string{"retention is WorkQueue and must be Limits"}},
		{"storage", func(s *jetstream.StreamConfig) { s.Storage = jetstream.MemoryStorage }, []string{"storage is Memory and must be File"}},
		{"bounds", func(s *jetstream.StreamConfig) { s.MaxBytes = 1 << 20 }, []string{"max_bytes is 1048576", "spool.max_bytes"}},
		{"direct", func(s *jetstream.StreamConfig) { s.AllowDirect = true }, []string{"allow_direct is true"}},
		{"overlap", func(s *jetstream.StreamConfig) { s.Name = "OTHER" }, []string{"make stream READINGS", "overlap"}},
		{"same", func(*jetstream.StreamConfig) {}, nil},
	} {
		t.Run(one.what, func(t *testing.T) {
			config := c.config(i)
			js := direct(t, c, i)
			made := right(config)
			one.change(&made)
			if _, err := js.CreateStream(soon(t), made); err != nil {
				t.Fatal(err)
			}
			if one.want == nil {
				put(t, open(t, t.TempDir(), at(config)), river("a", 1))
				return
			}
			wantIn(t, refusal(t, t.TempDir(), config), one.want...)
			stream, err := js.Stream(soon(t), made.Name)
			if err != nil {
				t.Fatal(err)
			}
			if d := append(disagreement(stream.CachedInfo().Config, made), boundsDiffer(stream.CachedInfo().Config, made)...); len(d) > 0 {
				t.Errorf("the stream was changed: %q", d)
			}
		})
	}
}

// TestBoundsFollow: the bounds of a stream that is ours follow the configuration,
// and what an operator set besides stays; other replicas are refused.
func TestBoundsFollow(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "bounds", 1)
	config, dir := c.config(0), t.TempDir()
	shut(t, open(t, dir, at(config)))
	js := direct(t, c, 0)
	stream, err := js.Stream(soon(t), streamReadings)
	if err != nil {
		t.Fatal(err)
	}
	changed := stream.CachedInfo().Config
	changed.Description = "asked for by the province"
	if _, err := js.UpdateStream(soon(t), changed); err != nil {
		t.Fatal(err)
	}
	config.MaxBytes, config.Full = 128<<20, DropOldest
	shut(t, open(t, dir, at(config)))
	if stream, err = js.Stream(soon(t), streamReadings); err != nil {
		t.Fatal(err)
	}
	got := stream.CachedInfo().Config
	if got.MaxBytes != 128<<20 || got.Discard != jetstream.DiscardOld || got.Description != changed.Description {
		t.Errorf("the stream is %+v", got)
	}
	config.Replicas = 3
	wantIn(t, refusal(t, dir, config), "replicas is 1 and must be 3 (spool.replicas)")
}

// direct is JetStream in the account of a log, without the spool.
func direct(t *testing.T, c *natsCluster, n int) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(c.url(), nats.UserInfo(fmt.Sprint("log", n), "secret"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return js
}
