package ioc

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// Defaults and bounds of digests and rates.
const (
	DefaultMoreThan = 5
	DefaultWithin   = time.Minute
	DefaultEvery    = 10 * time.Second

	maxMoreThan = 1000
	maxWithin   = time.Hour
	maxEvery    = 10 * time.Minute
	maxRate     = 100_000

	stormLasts = 6 * time.Hour // after the last digest of a region its next one begins a new thread
	digestList = 40            // warnings that a digest in a mail names one by one
	digestFew  = 3             // those that one in a short message names
)

// DigestConfig is when a recipient gets warnings together. Mail and short messages
// have it by default; a webhook that has it gets an object of digest, earlier,
// region and warnings instead of a warning, and only the newest transition of each.
// As soon as there are more than MoreThan messages within Within, further ones are told
// in one message for each river or area, the gravest first, and the next such
// message comes Every later at the earliest.
type DigestConfig struct {
	MoreThan *int               `yaml:"more_than"` // 0 to 1000; 0: always together; default DefaultMoreThan
	Within   telemetry.Duration `yaml:"within"`    // 1s to 1h; default DefaultWithin
	Every    telemetry.Duration `yaml:"every"`     // 1s to 10m; default DefaultEvery
	Off      bool               `yaml:"off"`       // each warning by itself, however many there are
}

// RateConfig bounds how many messages a recipient gets. What is beyond waits,
// and of what waits only the newest transition of each warning is told; the
// others are counted. A fifth is kept for severe and extreme warnings.
type RateConfig struct {
	Most int                `yaml:"most"` // 1 to 100000
	Per  telemetry.Duration `yaml:"per"`  // 1s to 1d
}

// Validate reports what is wrong.
func (c DigestConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if n := c.MoreThan; n != nil && (*n < 0 || *n > maxMoreThan) {
		faults = append(faults, telemetry.Faultf("more_than", "%d warnings are not in 0..%d", *n, maxMoreThan))
	}
	for _, f := range [...]struct {
		path  string
		value telemetry.Duration
		most  time.Duration
	}{{"within", c.Within, maxWithin}, {"every", c.Every, maxEvery}} {
		if d := f.value.Std(); d != 0 && (d < time.Second || d > f.most) {
			faults = append(faults, telemetry.Faultf(f.path, "%s is not in 1s..%s", f.value, telemetry.Duration(f.most)))
		}
	}
	return faults
}

// Validate reports what is wrong.
func (c RateConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	if c.Most < 1 || c.Most > maxRate {
		faults = append(faults, telemetry.Faultf("most", "%d messages are not in 1..%d", c.Most, maxRate))
	}
	if p := c.Per.Std(); p < time.Second || p > 24*time.Hour {
		faults = append(faults, telemetry.Faultf("per", "%s is not in 1s..1d", c.Per))
	}
	return faults
}

// A Digest is what several warnings of one region, all of a drill or none, have
// come to.
type Digest struct {
	Key      string   // the same for the same transitions
	Earlier  []string // keys of the earlier digests of the storm, the oldest first
	Region   telemetry.Text
	Warnings []telemetry.Warning // each as it stands; the gravest first, those that are over last
}

// wireDigest is a digest as JSON.
type wireDigest struct {
	Digest   string              `json:"digest"`
	Earlier  []string            `json:"earlier,omitempty"`
	Region   telemetry.Text      `json:"region"`
	Exercise bool                `json:"exercise,omitempty"`
	Warnings []telemetry.Warning `json:"warnings"`
}

// A Digester is a Deliverer that can tell several warnings at once.
type Digester interface {
	DeliverDigest(ctx context.Context, d Digest) error
}

// A storm decides whether warnings are told one by one or together. Both Senders
// of a recipient share it.
type storm struct {
	moreThan int
	within   time.Duration
	every    time.Duration
	region   func(device string) telemetry.Text

	mu      sync.Mutex
	told    []time.Time // of messages within the last within
	regions map[string]*thread
}

type thread struct {
	keys []string
	last time.Time
}

func newStorm(c DigestConfig, region func(string) telemetry.Text) *storm {
	s := &storm{moreThan: DefaultMoreThan, within: c.Within.Std(), every: c.Every.Std(), region: region, regions: map[string]*thread{}}
	if c.MoreThan != nil {
		s.moreThan = *c.MoreThan
	}
	if s.within == 0 {
		s.within = DefaultWithin
	}
	if s.every == 0 {
		s.every = DefaultEvery
	}
	return s
}

// Remembered is how far the bounds and threads of messages of recipients look back.
func Remembered(list []Config) time.Duration {
	longest := stormLasts
	for i := range list {
		if rate := list[i].Rate; rate != nil {
			longest = max(longest, rate.Per.Std())
		}
	}
	return longest
}

// An Earlier is what a recipient has accepted before it was opened: a transition,
// by itself or in a digest, as the record of deliveries has it.
type Earlier struct {
	At       time.Time
	Key      string // of the digest; "" by itself
	Device   string // "" when the warning is not known any more
	Exercise bool
}

// resume goes on where earlier messages left off.
func (s *storm) resume(earlier []Earlier, now time.Time) {
	seen := map[string]bool{}
	for i := range earlier {
		e := &earlier[i]
		first := e.Key == "" || !seen[e.Key]
		seen[e.Key] = true
		if age := now.Sub(e.At); age >= 0 && age < s.within && e.Key == "" {
			s.note(1, e.At)
		} else if age >= 0 && age < s.within && first {
			s.note(s.moreThan+1, e.At) // a storm that has begun
		}
		if e.Key == "" || e.Device == "" || !first || now.Sub(e.At) >= stormLasts {
			continue
		}
		s.continues(s.threadOf(s.region(e.Device), e.Exercise), e.Key, e.At)
	}
}

// resume goes on with the bucket as earlier messages have left it.
func (m *meter) resume(earlier []Earlier, now time.Time) {
	seen := map[string]bool{}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.tokens, m.filled = m.most, now.Add(-m.per)
	for i := range earlier {
		e := &earlier[i]
		if e.At.Before(m.filled) || e.At.After(now) || e.Key != "" && seen[e.Key] {
			continue
		}
		seen[e.Key] = true
		m.fill(e.At)
		m.tokens = max(0, m.tokens-1)
	}
	m.fill(now)
}

// Resume tells what the recipient has accepted lately, the oldest first; it is
// called before anything is delivered.
func (r *Recipient) Resume(earlier []Earlier) {
	now := time.Now()
	if r.storm != nil {
		r.storm.resume(earlier, now)
	}
	if r.meter != nil {
		r.meter.resume(earlier, now)
	}
}

// rages reports whether n further messages would be too many.
func (s *storm) rages(n int, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.told = slices.DeleteFunc(s.told, func(t time.Time) bool { return now.Sub(t) >= s.within })
	return len(s.told)+n > s.moreThan
}

// note counts messages.
func (s *storm) note(n int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range min(n, maxMoreThan+1) {
		s.told = append(s.told, now)
	}
	if extra := len(s.told) - 2*maxMoreThan; extra > 0 {
		s.told = slices.Delete(s.told, 0, extra)
	}
}

// digests groups warnings: those of the gravest region first.
func (s *storm) digests(warnings []telemetry.Warning, now time.Time) []Digest {
	groups := map[string]*Digest{}
	for _, w := range warnings {
		region := s.region(w.Device)
		name := s.threadOf(region, w.Exercise)
		d := groups[name]
		if d == nil {
			d = &Digest{Region: region}
			groups[name] = d
		}
		d.Warnings = append(d.Warnings, w)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Digest, 0, len(groups))
	for name, d := range groups {
		slices.SortFunc(d.Warnings, func(a, b telemetry.Warning) int {
			return cmp.Or(cmp.Compare(rank(&b), rank(&a)), cmp.Compare(a.Device, b.Device), cmp.Compare(a.ID, b.ID))
		})
		d.Key = digestKey(name, d.Warnings)
		if t := s.regions[name]; t != nil && now.Sub(t.last) < stormLasts {
			d.Earlier = slices.Clone(t.keys)
		}
		out = append(out, *d)
	}
	slices.SortFunc(out, func(a, b Digest) int {
		return cmp.Or(cmp.Compare(rank(&b.Warnings[0]), rank(&a.Warnings[0])), cmp.Compare(len(b.Warnings), len(a.Warnings)), cmp.Compare(a.Region.VI, b.Region.VI))
	})
	return out
}

// digestKey names a digest of the thread by what is in it.
func digestKey(thread string, warnings []telemetry.Warning) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s\n", thread)
	for i := range warnings {
		fmt.Fprintf(sum, "%s\n", warnings[i].Key())
	}
	return "digest-" + hex.EncodeToString(sum.Sum(nil)[:8])
}

// rank orders warnings by what they ask for: the severity, or nothing when they
// are over.
func rank(w *telemetry.Warning) telemetry.Severity {
	if cap.IsOver(w) {
		return telemetry.NoSeverity
	}
	return w.Severity
}

// sent remembers a digest, so that the next one of the region continues it.
func (s *storm) sent(d *Digest, now time.Time) {
	s.continues(s.threadOf(d.Region, d.Warnings[0].Exercise), d.Key, now)
}

// threadOf names the thread of a region's digests.
func (s *storm) threadOf(region telemetry.Text, exercise bool) string {
	if exercise {
		return region.VI + "\x00"
	}
	return region.VI
}

func (s *storm) continues(name, key string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, t := range s.regions {
		if now.Sub(t.last) >= stormLasts {
			delete(s.regions, n)
		}
	}
	t := s.regions[name]
	if t == nil {
		t = &thread{}
		s.regions[name] = t
	}
	t.last = now
	t.keys = append(t.keys, key)
	if len(t.keys) > maxThread {
		t.keys = append(t.keys[:1:1], t.keys[2:]...) // the first one names the thread
	}
}

// digest writes a digest in one language; most is how many warnings it names.
func (t *texts) digest(d *Digest, most int, vi bool) letter {
	region := d.Region.EN
	if vi {
		region = d.Region.VI
	}
	worst := &d.Warnings[0]
	grade := rank(worst).Text().In(vi)
	if rank(worst) == telemetry.NoSeverity {
		grade = choose(vi, "kết thúc", "over")
	}
	title := fmt.Sprintf(choose(vi, "[%s] %s: %d cảnh báo", "[%s] %s: %d warnings"), grade, region, len(d.Warnings))
	if n := len(d.Earlier); n > 0 {
		title += fmt.Sprintf(choose(vi, " (cập nhật %d)", " (update %d)"), n)
	}
	lines := []string{t.counts(d, vi)}
	for i := range d.Warnings {
		if i == most {
			lines = append(lines, fmt.Sprintf(choose(vi, "và %d cảnh báo khác", "and %d more"), len(d.Warnings)-i))
			break
		}
		lines = append(lines, t.line(&d.Warnings[i], vi))
	}
	l := letter{Title: oneLine(title), Body: strings.Join(lines, "\n")}
	if worst.Exercise {
		l.Title, l.Body = cap.Mark(vi)+l.Title, cap.Mark(vi)+l.Body
	}
	return l
}

// counts says how many there are of each severity.
func (t *texts) counts(d *Digest, vi bool) string {
	var parts []string
	for s := telemetry.Extreme; ; s-- {
		n := 0
		for i := range d.Warnings {
			if rank(&d.Warnings[i]) == s {
				n++
			}
		}
		if n > 0 && s > telemetry.NoSeverity {
			parts = append(parts, fmt.Sprintf("%d %s", n, s.Text().In(vi)))
		}
		if s == telemetry.NoSeverity {
			if n > 0 {
				parts = append(parts, fmt.Sprintf(choose(vi, "%d kết thúc", "%d over"), n))
			}
			return strings.Join(parts, ", ") + "."
		}
	}
}

func (t *texts) line(w *telemetry.Warning, vi bool) string {
	b := t.from.Chronicle.Now(*w)
	return fmt.Sprintf("- %s: %s, %s", grade(&b, vi), t.from.Composer.Texts(&b, vi).Headline, w.At.In(vietnam()).Format(localTime))
}

func choose(vi bool, inVietnamese, inEnglish string) string {
	if vi {
		return inVietnamese
	}
	return inEnglish
}

// DeliverDigest makes one attempt to mail a digest; those of one storm are one
// thread.
func (s *SMTP) DeliverDigest(ctx context.Context, d Digest) error {
	vi, en := s.digest(&d, digestList, true), s.digest(&d, digestList, false)
	return s.send(ctx, mailing{
		id: d.Key, thread: d.Earlier, title: vi.Title, vi: vi.Body, en: en.Title + "\n\n" + en.Body,
		urgent: rank(&d.Warnings[0]) >= telemetry.Severe,
	})
}

// DeliverDigest makes one attempt to post a digest: one object with the warnings
// in a list. The Idempotency-Key is that of the digest.
func (h *Webhook) DeliverDigest(ctx context.Context, d Digest) error {
	body, err := json.Marshal(wireDigest{d.Key, d.Earlier, d.Region, d.Warnings[0].Exercise, d.Warnings})
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: fmt.Sprintf("write digest %s as JSON: %v", d.Key, err)}
	}
	return h.send(ctx, d.Key, body)
}

// DeliverDigest makes one attempt to send a digest as short messages.
func (s *SMS) DeliverDigest(ctx context.Context, d Digest) error {
	var parts []string
	if s.language != "en" {
		parts = append(parts, s.short(&d, true))
	}
	if s.language == "en" || s.language == "both" {
		parts = append(parts, s.short(&d, false))
	}
	return s.say(ctx, d.Key, strings.Join(parts, "\n"))
}

// short writes a digest in as few words as there can be: how many of what, and
// where the gravest are.
func (t *texts) short(d *Digest, vi bool) string {
	var places []string
	for i := range d.Warnings[:min(len(d.Warnings), digestFew)] {
		b := cap.Bulletin{Type: cap.TypeUpdate, Warning: d.Warnings[i]}
		places = append(places, t.from.Composer.Texts(&b, vi).Area)
	}
	if len(d.Warnings) > digestFew {
		places = append(places, "…")
	}
	return t.digest(d, 0, vi).Title + ": " + t.counts(d, vi) + " " + strings.Join(places, "; ")
}

// A meter bounds messages: a bucket of tokens that fills evenly.
type meter struct {
	most float64
	per  time.Duration

	mu     sync.Mutex
	tokens float64
	filled time.Time
}

func newMeter(c RateConfig) *meter {
	return &meter{most: float64(c.Most), per: c.Per.Std(), tokens: float64(c.Most), filled: time.Now()}
}

// take takes a token, or returns how long to wait for one. A fifth of them is
// for grave warnings alone.
func (m *meter) take(grave bool, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fill(now)
	need := 1.0
	if !grave && m.most >= 5 {
		need += m.most / 5
	}
	if m.tokens >= need {
		m.tokens--
		return 0
	}
	return time.Duration((need-m.tokens)/m.most*float64(m.per)) + time.Millisecond
}

// fill adds what has come in until a time. It is called with mu held.
func (m *meter) fill(until time.Time) {
	m.tokens = min(m.most, m.tokens+m.most*until.Sub(m.filled).Seconds()/m.per.Seconds())
	m.filled = until
}

// wait waits for a token.
func (m *meter) wait(ctx context.Context, grave bool) error {
	for {
		pause := m.take(grave, time.Now())
		if pause == 0 {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}
