package main

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// partOf opens a part of a log in a cluster.
func partOf(t *testing.T, url string, p spool.Part) *spool.Spool {
	t.Helper()
	s, err := spool.Open(t.Context(), spool.Options{
		Dir: t.TempDir(), Config: spool.Config{URL: url, Replicas: 1, Partitions: 2, MaxBytes: 64 << 20}, Part: p, Gateway: "test",
		Followers: []string{followRules, followStore}, Waiting: func(error) {}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// siteIn returns the name of a site of a partition.
func siteIn(t *testing.T, partition int) string {
	t.Helper()
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if spool.PartitionOf(name, 2) == partition {
			return name
		}
	}
	t.Fatal("no site")
	return ""
}

// TestOrphansOfAPartition: an engine that has lost its state ends the warnings of its
// partition that it does not hold, also those that the centre has not taken up yet,
// and no others.
func TestOrphansOfAPartition(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	s, engine := partOf(t, url, spool.Part{Role: roleIOC}), partOf(t, url, spool.Part{Role: roleRules})
	c, err := openCentre(t.Context(), s.Warnings(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2025, 10, 27, 0, 0, 0, 0, time.UTC)
	step := func(id string, partition, n int, state telemetry.State) telemetry.Transition {
		site := siteIn(t, partition)
		return telemetry.Transition{Step: n, Warning: telemetry.Warning{ID: id, Rule: "flood", Device: site, Site: site, State: state, Severity: telemetry.Severe, Start: at, At: at}}
	}
	known := []telemetry.Transition{step("lost", 0, 1, telemetry.Active), step("held", 0, 1, telemetry.Active), step("elsewhere", 1, 1, telemetry.Active), step("over", 0, 1, telemetry.Active)}
	guest := step("guest", 0, 1, telemetry.Active) // of a gateway in the field: no engine here holds it
	guest.Gateway = "kim-long-box"
	if err := c.Step(t.Context(), append(known, guest)); err != nil {
		t.Fatal(err)
	}
	underway := []telemetry.Transition{step("lost", 0, 2, telemetry.Active), step("new", 0, 1, telemetry.Active), step("over", 0, 2, telemetry.Cleared)}
	if err := engine.Steps().Append(t.Context(), underway); err != nil {
		t.Fatal(err)
	}
	if err := endOrphans(t.Context(), engine, 0, at.Add(time.Hour), map[string]bool{"held": true, "over": false}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	followed := make(chan error, 1)
	g := &instance{centre: c}
	go func() { followed <- s.Steps().Follow(ctx, spool.FollowOptions{Name: followCentre}, g.takeSteps) }()
	eventually(t, "what the engine has lost is over", 10*time.Second, func() bool { return len(c.Warnings(false)) == 3 })
	for _, want := range []struct {
		id    string
		n     int
		state telemetry.State
	}{{"lost", 3, telemetry.Cleared}, {"new", 2, telemetry.Cleared}, {"over", 2, telemetry.Cleared}, {"held", 1, telemetry.Active}, {"elsewhere", 1, telemetry.Active}, {"guest", 1, telemetry.Active}} {
		if w, _ := c.Warning(want.id); w.N != want.n || w.State != want.state {
			t.Errorf("%s is %s with %d transitions, want %s with %d", want.id, w.State, w.N, want.state, want.n)
		}
	}
	stop()
	if err := <-followed; err != nil {
		t.Error(err)
	}
}

// TestSharedFiles: what the centre changes is what others have, and what one of them
// changed by itself is kept beside.
func TestSharedFiles(t *testing.T) {
	t.Parallel()
	_, url := startNATS(t, 1)
	centre, other := partOf(t, url, spool.Part{Role: roleIOC}), partOf(t, url, spool.Part{Role: roleIngest})
	here, there := t.TempDir(), t.TempDir()
	open := func(dir string) *sharer {
		sh, err := newSharer(dir, groupAccounts, groupRules)
		if err != nil {
			t.Fatal(err)
		}
		return sh
	}
	asides := map[string]string{}
	fetch := func(want int) {
		t.Helper()
		changed, err := open(there).fetch(t.Context(), other, func(group, aside string) { asides[group] = aside })
		if err != nil || len(changed) != want {
			t.Fatalf("%v changed, want %d: %v", changed, want, err)
		}
	}
	put := func(dir, name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	is := func(name, want string) {
		t.Helper()
		if text, err := os.ReadFile(name); err != nil || string(text) != want {
			t.Errorf("%s is %q, want %q: %v", name, text, want, err)
		}
	}
	fetch(0) // there is nothing yet
	put(here, "accounts.jsonl", "one")
	put(here, "rules/history.jsonl", "1")
	put(here, "rules/texts/abc", "text")
	shares := open(here)
	push := func() {
		t.Helper()
		if err := shares.push(t.Context(), centre); err != nil {
			t.Fatal(err)
		}
	}
	push()
	fetch(2)
	fetch(0)
	is(filepath.Join(there, "accounts.jsonl"), "one")
	is(filepath.Join(there, "rules", "texts", "abc"), "text")
	if info, err := os.Stat(filepath.Join(there, "accounts.jsonl")); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("everybody may read the accounts: %v %v", info.Mode(), err)
	}
	put(there, "accounts.jsonl", "changed where nobody looks")
	fetch(0)
	is(filepath.Join(there, "accounts.jsonl"), "changed where nobody looks")
	put(here, "accounts.jsonl", "another")
	push()
	fetch(1)
	is(filepath.Join(there, "accounts.jsonl"), "another")
	is(filepath.Join(asides[groupAccounts], "accounts.jsonl"), "changed where nobody looks")
}
