package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/archive"
	"haidang/gateway/registry"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// The archive in the data folder: every transition of every warning, and every
// change that somebody made.
const (
	archiveFolder   = "archive"
	archiveWarnings = "warnings"
	archiveAudit    = "audit"

	maxAuditBytes = 1 << 30
	sweepEvery    = time.Hour
)

// followArchive is the name of the follower that fills the archive. It is not on
// the roll: a gateway that gets an archive puts all into it that the log has.
const followArchive = "archive"

// annals are what has become of warnings: the log, and before it the archive.
type annals struct {
	log     *spool.Log[telemetry.Transition]
	archive *archive.Archive[telemetry.Transition] // nil: there is none

	// own is the file that says how far the log is in the archive, where the log is
	// that of several machines and each has an archive; empty: a position of the log.
	own    string
	filled atomic.Uint64 // the same, in memory
}

// position returns how far the log is in the archive.
func (a *annals) position() uint64 {
	if a.own == "" {
		return a.log.Position(followArchive)
	}
	return a.filled.Load()
}

// ownPosition reads how far the log is in the archive of this machine: 0 when that
// is not known, and when the log is another than it was.
func (a *annals) ownPosition() uint64 {
	text, err := os.ReadFile(a.own)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || n > a.log.Last() {
		return 0
	}
	return n
}

// filledTo keeps how far the log is in the archive.
func (a *annals) filledTo(seq uint64) error {
	if a.own == "" {
		return nil
	}
	a.filled.Store(seq)
	return registry.WriteFile(a.own, strconv.AppendUint(nil, seq, 10))
}

// openArchive opens the archive. A replay has none: what it raises did not happen.
func (g *instance) openArchive(live bool) (err error) {
	g.annals.log = g.spool.Warnings()
	if !live {
		return nil
	}
	g.annals.archive, err = archive.Open(filepath.Join(g.cfg.Data, archiveFolder, archiveWarnings), archive.Options[telemetry.Transition]{
		Name: archiveWarnings, At: func(t *telemetry.Transition) time.Time { return t.At }, Config: g.cfg.Archive, Reg: g.reg, Logger: g.logger})
	if err != nil {
		return err
	}
	if g.machine != nil {
		g.annals.own = filepath.Join(g.cfg.Data, archiveFolder, archiveWarnings+".position")
	}
	g.audit, err = openAudit(g.cfg.Data, g.cfg.Archive, g.reg)
	return err
}

// fillArchive puts the transitions into the archive as they come, and what people
// did into the audit, until ctx ends.
func (g *instance) fillArchive(ctx context.Context) error {
	if g.annals.archive == nil {
		return nil
	}
	options := spool.FollowOptions{Name: followArchive}
	if g.annals.own != "" {
		g.annals.filled.Store(g.annals.ownPosition())
		options = spool.FollowOptions{From: g.annals.filled.Load() + 1}
	}
	if _, any := g.annals.archive.Since(); !any {
		options.From = 1 // it is new, or somebody has taken it away: the log has what is left
	}
	return g.annals.log.Follow(ctx, options, func(_ context.Context, b *spool.Batch[telemetry.Transition]) error {
		list, err := b.Records()
		if err != nil {
			return err
		}
		var acts []auditEntry
		for i := range list {
			if e, ok := auditOf(&list[i]); ok {
				acts = append(acts, e)
			}
		}
		if err := errors.Join(g.audit.archive.Append(acts), g.annals.archive.Append(list)); err != nil {
			return err
		}
		return g.annals.filledTo(b.Last())
	})
}

// keepArchive closes the files whose month is over, and keeps the bounds, until
// ctx ends.
func (g *instance) keepArchive(ctx context.Context) {
	if g.annals.archive == nil {
		return
	}
	for {
		now := time.Now()
		if err := errors.Join(g.annals.archive.Sweep(now), g.audit.archive.Sweep(now)); err != nil {
			g.logger.Error("the archive of warnings cannot be kept", "error", err)
		}
		if !wait(ctx, sweepEvery) {
			return
		}
	}
}

// each calls f with the transitions since a time, the oldest first: those that are
// in the archive, then those of the log that are not there yet. mark, where it is
// not empty, is what a transition that is wanted has in its JSON. A transition can
// come twice.
//
// The log itself is not read from its start: the archive has its months apart, and
// is looked through without decoding what is not wanted.
func (a *annals) each(ctx context.Context, since time.Time, mark []byte, f func(telemetry.Transition)) error {
	if a.archive == nil {
		return a.log.Replay(ctx, f)
	}
	last := a.log.Last()
	filled := a.position()
	// What can be read of a damaged archive is told, and that it is damaged.
	damage := a.archive.Each(ctx, since, time.Now().AddDate(100, 0, 0), mark, func(t telemetry.Transition) error { f(t); return nil })
	if ctx.Err() != nil || filled >= last {
		return damage
	}
	within, stop := context.WithCancel(ctx)
	defer stop()
	read := filled
	err := a.log.Follow(within, spool.FollowOptions{From: filled + 1}, func(_ context.Context, b *spool.Batch[telemetry.Transition]) error {
		if b.Last() <= read {
			return nil
		}
		list, err := b.Records()
		if err != nil {
			return err
		}
		read = b.Last()
		for _, t := range list {
			f(t)
		}
		if read >= last {
			stop()
		}
		return nil
	})
	if read < last && err == nil {
		err = fmt.Errorf("read the warnings log: ended at frame %d of %d: %w", read, last, context.Cause(ctx))
	}
	return errors.Join(damage, err)
}

// openAudit opens the audit of a data folder. What a verb makes that root runs
// belongs to whom the folder belongs: the gateway writes there too.
func openAudit(data string, c archive.Config, reg prometheus.Registerer) (*audit, error) {
	c.MaxBytes = maxAuditBytes
	a, err := archive.Open(filepath.Join(data, archiveFolder, archiveAudit), archive.Options[auditEntry]{
		Name: archiveAudit, At: func(e *auditEntry) time.Time { return e.At }, Config: c, Reg: reg})
	if err != nil {
		return nil, err
	}
	return &audit{archive: a}, nil
}

// belongsToFolder gives what root has made in a data folder to whom the folder
// belongs.
func belongsToFolder(data string) error {
	owner, err := os.Stat(data)
	if err != nil || os.Geteuid() != 0 {
		return err
	}
	st, ok := owner.Sys().(*syscall.Stat_t)
	if !ok || st.Uid == 0 {
		return nil
	}
	return filepath.WalkDir(filepath.Join(data, archiveFolder), func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(st.Uid), int(st.Gid))
	})
}
