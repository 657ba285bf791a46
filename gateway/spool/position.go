package spool

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// positionPause is between two writings of the positions; with a slow disk it
// is longer, so that they take at most a tenth of its time.
const positionPause = 200 * time.Millisecond

// A position is how far a follower has come.
type position struct {
	seq      uint64 // everything up to it need not be delivered again
	stored   uint64 // the same, as it is on disk
	accepted uint64 // a manual follower accepts more than it has committed
	received int64  // receipt time of the frame accepted last, Unix ns; 0 when not known
	ours     bool   // of a follower in this process; of others it is as old as the last look
}

type followerKey struct{ log, name string }

// positions keeps the positions of the followers, in memory and on disk.
type positions struct {
	spool *Spool

	mu   sync.Mutex
	at   map[followerKey]*position
	wake chan struct{} // capacity 1

	storing sync.Mutex

	progress chan struct{}    // capacity 1: a follower has accepted something
	second   *secondPositions // nil in a cluster
}

func openPositions(ctx context.Context, s *Spool) (*positions, error) {
	ctx, cancel := context.WithTimeout(ctx, openPatience)
	defer cancel()
	p := &positions{spool: s, at: map[followerKey]*position{}, wake: make(chan struct{}, 1), progress: make(chan struct{}, 1)}
	var kv jetstream.KeyValue
	var err error
	if s.cluster == nil {
		kv, err = s.link.append.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: bucketKV, Description: "haidang: positions of followers", History: 1,
			MaxBytes: 16 << 20, Storage: jetstream.FileStorage, Replicas: s.config.Replicas,
		})
	} else {
		kv, err = s.link.append.KeyValue(ctx, bucketKV) // agreed on
	}
	if err != nil {
		return nil, fmt.Errorf("open the positions of the followers: %w", err)
	}
	keys, err := s.subjects(ctx, "KV_"+bucketKV, positionSubject)
	if err != nil {
		return nil, fmt.Errorf("list the positions of the followers: %w", err)
	}
	for _, key := range keys {
		if err := p.load(ctx, kv, key); err != nil {
			return nil, err
		}
	}
	if s.config.URL == "" {
		p.second = &secondPositions{path: filepath.Join(s.options.Dir, positionsFile)}
		p.restore()
	}
	return p, nil
}

// positionSubject is that of a bucket's keys.
const positionSubject = "$KV." + bucketKV + "."

// subjects returns what comes behind prefix in the subjects of a stream. The
// client's own way to list the keys of a bucket is a cursor, which waits in vain
// for what the disk has lost.
func (s *Spool) subjects(ctx context.Context, name, prefix string) ([]string, error) {
	stream, err := s.link.append.Stream(ctx, name)
	if err != nil {
		return nil, err
	}
	info, err := stream.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, err
	}
	var out []string
	for subject := range info.State.Subjects {
		if rest, ok := strings.CutPrefix(subject, prefix); ok {
			out = append(out, rest)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (p *positions) load(ctx context.Context, kv jetstream.KeyValue, key string) error {
	entry, err := kv.Get(ctx, key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return nil
	}
	if err != nil && ctx.Err() == nil && p.spool.config.URL == "" {
		p.spool.logger.Error("the position of a follower cannot be read", "key", key, "error", err)
		return nil // there is a second one
	}
	if err != nil {
		return fmt.Errorf("read position %s: %w", key, err)
	}
	follower, c := p.keyOf(key)
	if c == nil && p.spool.options.Part != (Part{}) {
		return nil // somebody else's
	}
	if c == nil {
		if err := kv.Purge(ctx, key); err != nil {
			return fmt.Errorf("forget position %s: %w", key, err)
		}
		return nil
	}
	seq, err := strconv.ParseUint(string(entry.Value()), 10, 64)
	if err != nil {
		p.spool.logger.Error("the position of a follower cannot be read", "key", key, "error", err)
		return nil
	}
	if err := p.spool.reach(ctx, c, seq); err != nil {
		return err
	}
	p.set(follower, c, seq, seq)
	return nil
}

// Patience with a stream whose leader has just become one.
const (
	reachPatience = 3 * time.Second
	reachPause    = 100 * time.Millisecond
)

// reach waits a moment for a stream of a cluster that ends before a position in
// it: its leader may not have come so far yet.
func (s *Spool) reach(ctx context.Context, c *core, seq uint64) error {
	if s.cluster == nil {
		return nil
	}
	for begin := time.Now(); seq > c.last.Load() && time.Since(begin) < reachPatience; {
		if !sleep(ctx, reachPause) {
			return ctx.Err()
		}
		last, err := c.lastSeq(ctx, s.link)
		if err != nil {
			return err
		}
		raise(&c.last, last)
	}
	return nil
}

// keyOf returns whose position a key is; without a core nobody's.
func (p *positions) keyOf(key string) (followerKey, *core) {
	log, encoded, _ := strings.Cut(key, ".")
	name := decodeKey(encoded)
	for _, c := range p.spool.cores() {
		if c.name == log && (c != p.spool.readings.core || p.spool.known(name)) {
			return followerKey{log, name}, c
		}
	}
	return followerKey{}, nil
}

// set takes over a position that was stored.
func (p *positions) set(key followerKey, c *core, seq, stored uint64) {
	if last := c.last.Load(); seq > last {
		p.spool.logger.Warn("a follower had read frames that the log has lost", "follower", key.name, "log", key.log, "frames", seq-last)
		seq = last
	}
	p.at[key] = &position{seq: seq, stored: min(stored, seq), accepted: seq}
}

// known tells whether a follower's position on the readings is kept.
func (s *Spool) known(name string) bool {
	if s.options.Followers == nil || s.options.Part != (Part{}) {
		return true
	}
	for _, one := range s.options.Followers {
		if one == name {
			return true
		}
	}
	return false
}

func (p *positions) get(key followerKey) position {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.at[key]; at != nil {
		return *at
	}
	return position{}
}

// all returns a copy of the positions.
func (p *positions) all() map[followerKey]position {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[followerKey]position, len(p.at))
	for key, at := range p.at {
		out[key] = *at
	}
	return out
}

// take notes what a manual follower has accepted.
func (p *positions) take(key followerKey, seq uint64, received int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.of(key)
	at.accepted, at.received = seq, received
	p.went()
}

// went wakes who waits in pace.
func (p *positions) went() {
	select {
	case p.progress <- struct{}{}:
	default:
	}
}

// begin notes that a manual follower begins behind seq, which may be before what
// it had accepted in an earlier life.
func (p *positions) begin(key followerKey, seq uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at := p.of(key); at.accepted != seq {
		at.accepted, at.received = seq, 0
	}
}

// of returns the position to change. p.mu is held.
func (p *positions) of(key followerKey) *position {
	at := p.at[key]
	if at == nil {
		at = &position{}
		p.at[key] = at
	}
	at.ours = true
	return at
}

// look reads how far the followers in other processes have come.
func (p *positions) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	kv, err := p.spool.current().append.KeyValue(ctx, bucketKV)
	if err != nil {
		return fmt.Errorf("open the positions of the followers: %w", err)
	}
	for _, name := range p.spool.options.Followers {
		key := followerKey{p.spool.readings.core.name, name}
		if p.get(key).ours {
			continue
		}
		seq := uint64(0)
		entry, err := kv.Get(ctx, key.log+"."+encodeKey(name))
		if err == nil {
			seq, err = strconv.ParseUint(string(entry.Value()), 10, 64)
		}
		if err != nil && !errors.Is(err, jetstream.ErrKeyNotFound) {
			return fmt.Errorf("read the position of %s: %w", name, err)
		}
		p.mu.Lock()
		if at := p.at[key]; at == nil || !at.ours {
			p.at[key] = &position{seq: seq, stored: seq, accepted: seq}
		}
		p.mu.Unlock()
	}
	return nil
}

// move moves a position forward. received is 0 when it is not known.
func (p *positions) move(key followerKey, seq uint64, received int64) {
	p.mu.Lock()
	at := p.of(key)
	moved := seq > at.seq
	if moved {
		at.seq = seq
	}
	if seq > at.accepted {
		at.accepted, at.received = seq, received
	}
	p.mu.Unlock()
	p.went()
	if !moved {
		return
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// keep stores the positions that moved, at a measured pace, and at the end.
func (p *positions) keep() {
	for failures := 0; ; {
		select {
		case <-p.wake:
		case <-p.spool.idle:
			ctx, cancel := context.WithTimeout(context.Background(), askPatience)
			defer cancel()
			if err := p.store(ctx); err != nil && !errors.Is(err, ErrTaken) { // another stores them now
				p.spool.logger.Warn("store the positions at the end; some frames will be delivered again", "error", err)
			}
			p.keepSecond(0)
			return
		}
		begin := time.Now()
		link := p.spool.current()
		pause := positionPause
		if err := p.store(p.spool.life); err != nil {
			p.spool.metrics.positionErrors.Inc()
			if failures++; failures >= 3 && isBroken(err) {
				p.spool.heal(p.spool.life, link)
			}
			pause = restAtMost
			p.again()
		} else {
			failures = 0
			p.keepSecond(secondPause)
			if p.spool.anyFull() {
				p.spool.room.kick()
			}
		}
		p.rest(max(pause, 10*time.Since(begin)))
	}
}

func (p *positions) rest(d time.Duration) {
	t := time.NewTimer(min(d, 5*time.Second))
	defer t.Stop()
	select {
	case <-t.C:
	case <-p.spool.idle:
	}
}

func (p *positions) again() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// store writes what has moved since it was written.
func (p *positions) store(ctx context.Context) error {
	p.storing.Lock() // in a cluster each is written against what the last one wrote
	defer p.storing.Unlock()
	moved := p.all()
	for key, at := range moved {
		if at.stored == at.seq {
			delete(moved, key)
		}
	}
	if len(moved) == 0 {
		return nil
	}
	p.spool.writing.RLock()
	defer p.spool.writing.RUnlock()
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	link := p.spool.current()
	kv, err := link.append.KeyValue(ctx, bucketKV)
	if err != nil {
		return fmt.Errorf("open the positions of the followers: %w", err)
	}
	for key, at := range moved {
		if err := p.spool.putPosition(ctx, link, kv, key.log+"."+encodeKey(key.name), strconv.FormatUint(at.seq, 10)); err != nil {
			return fmt.Errorf("store the position of %s: %w", key.name, err)
		}
		p.mu.Lock()
		p.at[key].stored = at.seq
		p.mu.Unlock()
	}
	return nil
}

// empties reports whether this process drops what all followers of a log have.
func (s *Spool) empties() bool {
	switch s.options.Part.Role {
	case "", RoleRules, RoleIOC:
		return true
	}
	return false
}

// emptied returns up to where a log may be emptied, and whether this process does.
func (p *positions) emptied(c *core) (upTo uint64, does bool) {
	switch p.spool.options.Part.Role {
	case "", RoleRules:
		if c == p.spool.readings.core {
			return p.slowest(), true
		}
	case RoleIOC:
		if c == p.spool.steps.core {
			return p.slowestOf(c.name), true
		}
	}
	return 0, false
}

// slowestOf returns the sequence up to which all followers of a log that have a
// position have accepted everything, as it is on disk.
func (p *positions) slowestOf(log string) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	slowest := ^uint64(0)
	for key, at := range p.at {
		if key.log == log {
			slowest = min(slowest, at.stored)
		}
	}
	if slowest == ^uint64(0) {
		return 0
	}
	return slowest
}

// slowest returns the sequence up to which all known followers of the readings
// have accepted everything, as it is on disk; 0 when one has no position.
func (p *positions) slowest() uint64 {
	if len(p.spool.options.Followers) == 0 {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	slowest := ^uint64(0)
	for _, name := range p.spool.options.Followers {
		at := p.at[followerKey{p.spool.readings.core.name, name}]
		if at == nil {
			return 0
		}
		slowest = min(slowest, at.stored)
	}
	return slowest
}

// encodeKey writes any name with the characters that a NATS key may have: other
// bytes than letters and digits as =XX.
func encodeKey(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "=%02X", c)
	}
	return b.String()
}

func decodeKey(key string) string {
	var b strings.Builder
	for i := 0; i < len(key); i++ {
		if key[i] == '=' && i+2 < len(key) {
			if n, err := strconv.ParseUint(key[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(key[i])
	}
	return b.String()
}
