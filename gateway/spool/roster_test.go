package spool

import (
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"haidang/gateway/telemetry"
)

// TestPartsExclude: who has a part is told, roles and a gateway without them
// exclude each other, and the number of partitions is set once.
func TestPartsExclude(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "exclude", 1)
	config := c.inParts(0, 2)
	refused := func(config Config, part Part) error {
		s, err := Open(t.Context(), Options{Dir: t.TempDir(), Config: config, Part: part, Gateway: "b", Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			shut(t, s)
			t.Fatalf("%s was opened", part)
		}
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("more than a line: %v", err)
		}
		return err
	}
	rules := open(t, t.TempDir(), as(config, Part{RoleRules, 1}))
	err := refused(config, Part{RoleRules, 1})
	if wantIn(t, err.Error(), "part rules.1: kim-long-box on "); !errors.Is(err, ErrTaken) {
		t.Errorf("%v is no ErrTaken", err)
	}
	open(t, t.TempDir(), as(config, Part{RoleRules, 0}))
	ingest := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	wantIn(t, refused(c.inParts(0, 4), Part{Role: RoleStore}).Error(), "has 2 partitions and not 4", "spool.partitions is set once")
	wantIn(t, refused(c.inParts(0, 1), Part{}).Error(), "has 2 partitions and not 1")
	wantIn(t, refused(config, Part{}).Error(), "needs roles")
	wantIn(t, refused(config, Part{RoleStore, 2}).Error(), "no part store.2", "spool.partitions 2")
	wantIn(t, refused(config, Part{Role: "reader"}).Error(), `role "reader"`, "ingest, rules, store, ioc")
	wantIn(t, refused(Config{}, Part{Role: RoleIOC}).Error(), "need spool.url")
	if err := ingest.Readings().Follow(t.Context(), FollowOptions{Name: "store"}, nil); err == nil {
		t.Error("an ingest machine has a position")
	}
	shut(t, rules)

	whole := c.inParts(1, 0)
	ioc := open(t, t.TempDir(), as(whole, Part{Role: RoleIOC}))
	err = refused(whole, Part{})
	if wantIn(t, err.Error(), "exclude each other", "kim-long-box on"); !errors.Is(err, ErrMixed) {
		t.Errorf("%v is no ErrMixed", err)
	}
	shut(t, ioc)
	ingest = open(t, t.TempDir(), as(whole, Part{Role: RoleIngest}))
	wantIn(t, refused(whole, Part{}).Error(), "exclude each other")
	shut(t, ingest)
	open(t, t.TempDir(), at(whole))
	for _, part := range []Part{{Role: RoleIngest}, {Role: RoleRules}} {
		if err := refused(whole, part); !errors.Is(err, ErrMixed) {
			t.Errorf("%s beside a gateway that has everything: %v", part, err)
		}
	}
}

// TestOwnersWidened: the stream of the owners that was made before there were parts
// is taken over.
func TestOwnersWidened(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "widened", 1)
	config := c.config(0)
	shut(t, open(t, t.TempDir(), at(config)))
	js := direct(t, c, 0)
	stream, err := js.Stream(soon(t), streamOwners)
	if err != nil {
		t.Fatal(err)
	}
	old := stream.CachedInfo().Config
	old.Subjects = strings.Fields(narrowOwners)
	delete(old.Metadata, partitionsMark)
	if _, err := js.UpdateStream(soon(t), old); err != nil {
		t.Fatal(err)
	}
	wantIn(t, refusal(t, t.TempDir(), c.inParts(0, 2)), "needs roles")
	open(t, t.TempDir(), as(config, Part{Role: RoleRules}))
}

// TestRoster: who has which part, also after one has gone.
func TestRoster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "roster", 1)
	config := c.inParts(0, 2)
	roster, err := OpenRoster(t.Context(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(roster.Close)
	holders := func() map[string]Holder {
		held, err := roster.Holders(soon(t))
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	if held := holders(); len(held) != 0 {
		t.Errorf("before the first gateway: %v", held)
	}
	open(t, t.TempDir(), as(config, Part{RoleRules, 1}))
	ingest := open(t, t.TempDir(), as(config, Part{Role: RoleIngest}))
	ioc := open(t, t.TempDir(), as(config, Part{Role: RoleIOC}, func(o *Options) { o.Console = "https://kim-long:8080" }))
	held := holders()
	if len(held) != 3 || held["rules.1"].Gateway != "kim-long-box" || held["ioc"].Console != "https://kim-long:8080" {
		t.Errorf("the holders are %v", held)
	}
	post := open(t, t.TempDir(), as(config, Part{RolePost, 1}, func(o *Options) { o.Status = func() json.RawMessage { return json.RawMessage(`["ioc"]`) } }))
	if held := holders(); string(held["post.1"].Status) != `["ioc"]` {
		t.Errorf("the holders are %v, want one with its status", held)
	}
	shut(t, post)
	shut(t, ioc)
	shut(t, ingest)
	if held := holders(); len(held) != 1 {
		t.Errorf("the holders are %v, want one", held)
	}
	stolen := config
	stolen.Password = "stolen"
	if _, err := OpenRoster(t.Context(), stolen, nil); err == nil || !strings.Contains(err.Error(), "refuses spool.credentials") {
		t.Errorf("wrong credentials: %v", err)
	}
}

// TestPartsForeignStream: a stream of several partitions that somebody else made is
// left alone, as others are.
func TestPartsForeignStream(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "foreignparts", 1)
	made := streamConfig(c.inParts(0, 2).withDefaults(0), readingsPlace(1, 2))
	made.Retention = jetstream.WorkQueuePolicy
	if _, err := direct(t, c, 0).CreateStream(soon(t), made); err != nil {
		t.Fatal(err)
	}
	_, err := Open(t.Context(), Options{Dir: t.TempDir(), Config: c.inParts(0, 2), Part: Part{Role: RoleIngest}, Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Fatal("it was opened")
	}
	wantIn(t, err.Error(), "stream READINGS_1 is not as it must be", "retention is WorkQueue")
}

// TestPermissions: the account needs no more than docs/cluster.md says.
func TestPermissions(t *testing.T) {
	t.Parallel()
	c := startCluster(t, "narrow", 1, `accounts: {narrow: {jetstream: enabled, users: [{user: log0, password: secret, permissions: {
		publish: ["$JS.API.>", "$KV.POSITIONS.>", "$O.CHECKPOINTS.>", "readings.*", "warnings.*", "dead_letters.*", "steps.*", "attempts.*", "owners.>", "epochs.>"],
		subscribe: ["_INBOX.>"]}}]}}`)
	config := c.inParts(0, 2)
	for _, part := range owned {
		fillFollowed(t, config, part)
		s := open(t, t.TempDir(), as(config, part))
		if err := work(soon(t), s, 4); err != nil {
			t.Errorf("%s: %v", part, err)
		}
		worked(t, s, 4)
		if err := s.DeadLetters().Append(soon(t), []telemetry.DeadLetter{{Place: "here", Reason: "test", At: noon}}); err != nil {
			t.Error(err)
		}
		shut(t, s)
	}
	roster, err := OpenRoster(t.Context(), config, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer roster.Close()
	if _, err := roster.Holders(soon(t)); err != nil {
		t.Error(err)
	}
}

// TestPartsShareFolder: the parts of one process have one folder, which remembers
// the streams of all of them.
func TestPartsShareFolder(t *testing.T) {
	t.Parallel()
	ours, other := startCluster(t, "shared", 1), startCluster(t, "sharedother", 1)
	dir := t.TempDir()
	parts := []Part{{RoleRules, 0}, {RoleRules, 1}, {RoleStore, 0}, {RoleStore, 1}, {Role: RoleIOC}, {RolePost, 0}, {RolePost, 1}, {Role: RoleIngest}}
	var group sync.WaitGroup
	for _, part := range parts {
		group.Go(func() {
			o := Options{Dir: dir, Logger: slog.New(slog.DiscardHandler)}
			as(ours.inParts(0, 2), part)(&o)
			s, err := Open(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	known, err := readIdentity(dir)
	if err != nil || len(known.Made) != 9 {
		t.Errorf("the folder remembers %v, %v; want 9 streams", known.Made, err)
	}
	for _, part := range parts {
		_, err := Open(t.Context(), Options{Dir: dir, Config: other.inParts(0, 2), Part: part, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			t.Fatal("another cluster was opened")
		}
		wantIn(t, err.Error(), "does not have the log of this gateway")
	}
}
