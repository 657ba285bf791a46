package account

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// remembered is for how long a person's password that was right is not computed
// again.
const remembered = 10 * time.Minute

// A Store answers who somebody is. It is safe for concurrent use.
type Store struct {
	path    string
	limits  map[telemetry.Role]telemetry.Limits
	logger  *slog.Logger
	metrics *metrics

	state   atomic.Pointer[state]
	key     [32]byte // of what is remembered of passwords
	slots   slots
	slow    *slow
	nobody  *sealed       // costs what a person's password costs
	waiting chan struct{} // requests with wrong secrets
	loading sync.Mutex
	seen    stamp // of the file, under loading
}

// A state is the accounts of one version of the file.
type state struct {
	on      bool
	entries map[string]*entry
	tokens  map[string]*token // by id
	anyone  *telemetry.Account
	end     context.CancelFunc // of anyone's life
}

// An entry is an account in memory. It lives as long as nothing of it changes.
type entry struct {
	record   Record
	account  *telemetry.Account
	secret   *sealed // nil: none
	end      context.CancelCauseFunc
	before   *sealed // the secret of before, while it is good
	earlier  *telemetry.Account
	endOlder context.CancelFunc

	proved atomic.Pointer[proof]
}

// A proof is a password that was right.
type proof struct {
	mac   [sha256.Size]byte
	until time.Time
}

type token struct {
	Token
	hash    *sealed
	owner   *entry
	account *telemetry.Account
	end     context.CancelFunc
}

// A stamp tells versions of the file apart.
type stamp struct {
	modified time.Time
	size     int64
	inode    uint64
}

// Options are what a store is opened with.
type Options struct {
	Path       string // of the file
	Limits     map[telemetry.Role]telemetry.Limits
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Open reads the file, which need not be there: then there are no accounts. Its
// error is Faults when the file has some.
func Open(o Options) (*Store, error) {
	s := &Store{path: o.Path, limits: o.Limits, logger: o.Logger, slots: newSlots(), slow: newSlow(), waiting: make(chan struct{}, maxWaiting)}
	_, _ = rand.Read(s.key[:]) // never fails (crypto/rand)
	s.nobody = &sealed{slow: true, memory: argonMemory, time: argonTime, lane: argonLanes, salt: newSalt(), key: make([]byte, argonBytes)}
	s.metrics = newMetrics(o.Registerer, s)
	life, end := context.WithCancel(context.Background())
	s.state.Store(&state{anyone: telemetry.Anyone(life), end: end})
	if err := s.Reload(); err != nil {
		return nil, err
	}
	return s, nil
}

// On reports whether there are accounts, so that everybody must say who he is.
func (s *Store) On() bool { return s.state.Load().on }

// Count returns how many accounts there are.
func (s *Store) Count() int { return len(s.state.Load().entries) }

// Voices returns the accounts of devices and programs that may speak for a device,
// sorted.
func (s *Store) Voices(device string) []string {
	var out []string
	for name, e := range s.state.Load().entries {
		if a := e.account; a.May(telemetry.Write, device) && !a.SpeaksForAll() {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// Run looks after the file until ctx ends. A file that cannot be used is logged,
// once for each of its versions, and what was read before it stays in force.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(PollInterval)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := s.Reload()
		switch {
		case err == nil:
			said = ""
		case err.Error() != said:
			said = err.Error()
			s.metrics.failed.Inc()
			s.logger.Error("the accounts are not read again, those of before hold", "error", err)
		}
	}
}

// Reload puts the file in force when it has changed.
func (s *Store) Reload() error {
	s.loading.Lock()
	defer s.loading.Unlock()
	now, err := stampOf(s.path)
	if absent(err) {
		if s.On() {
			return fmt.Errorf("%s is gone; put it back, or restart without accounts", s.path)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at the accounts: %w", err)
	}
	if s.On() && now == s.seen {
		return nil
	}
	records, err := read(s.path)
	if err != nil {
		return err
	}
	next, err := s.build(records)
	if err != nil {
		return err
	}
	s.seen = now
	s.replace(next)
	return nil
}

func stampOf(path string) (stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	at := stamp{modified: info.ModTime(), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		at.inode = st.Ino
	}
	return at, nil
}

// build makes the next state, with the entries of the last one that have not
// changed.
func (s *Store) build(records []Record) (*state, error) {
	last := s.state.Load()
	next := &state{on: true, entries: make(map[string]*entry, len(records)), tokens: map[string]*token{}, anyone: last.anyone, end: last.end}
	for i := range records {
		r := records[i]
		e := last.entries[r.Name]
		if e == nil || !e.record.same(&r) {
			var err error
			if e, err = s.newEntry(r); err != nil {
				return nil, err
			}
		}
		next.entries[r.Name] = e
		for _, t := range r.Tokens {
			have := last.tokens[t.ID]
			if have == nil || have.owner != e || !have.Token.same(&t) {
				var err error
				if have, err = newToken(t, e); err != nil {
					return nil, err
				}
			}
			next.tokens[t.ID] = have
		}
	}
	return next, nil
}

// same reports whether an account is what it was, apart from its tokens, which
// live for themselves, and from what is for people only.
func (r *Record) same(other *Record) bool {
	return fingerprint(r) == fingerprint(other)
}

// onlySecretsDiffer reports whether an account may do what it might before.
func (r *Record) onlySecretsDiffer(other *Record) bool {
	one, two := *r, *other
	one.Secret, one.Previous, one.PreviousUntil = "", "", time.Time{}
	two.Secret, two.Previous, two.PreviousUntil = "", "", time.Time{}
	return one.same(&two)
}

func fingerprint(r *Record) string {
	core := *r
	core.Tokens, core.Note, core.Changed = nil, "", time.Time{}
	return fmt.Sprintf("%+v", core)
}

func (t *Token) same(other *Token) bool { return fmt.Sprintf("%+v", *t) == fmt.Sprintf("%+v", *other) }

func (s *Store) newEntry(r Record) (*entry, error) {
	a := r.account()
	a.Limits = a.Limits.Or(s.limits[r.Role]).Or(r.Role.DefaultLimits())
	e := &entry{record: r, account: &a}
	a.Life, e.end = context.WithCancelCause(context.Background())
	var err error
	if r.Secret != "" {
		if e.secret, err = parseSealed(r.Secret); err != nil {
			return nil, fmt.Errorf("account %q: secret: %w", r.Name, err)
		}
	}
	if r.Previous != "" {
		if e.before, err = parseSealed(r.Previous); err != nil {
			return nil, fmt.Errorf("account %q: previous: %w", r.Name, err)
		}
		older := a
		older.Life, e.endOlder = context.WithDeadlineCause(a.Life, r.PreviousUntil, &telemetry.Rotated{Next: &a})
		e.earlier = &older
	}
	return e, nil
}

func newToken(t Token, owner *entry) (*token, error) {
	hash, err := parseSealed(t.Hash)
	if err != nil {
		return nil, fmt.Errorf("account %q: token %q: %w", owner.account.Name, t.ID, err)
	}
	a := *owner.account
	if len(t.Rights) > 0 {
		a.Narrowed = t.Rights
	}
	out := &token{Token: t, hash: hash, owner: owner, account: &a}
	if t.Expires.IsZero() {
		a.Life, out.end = context.WithCancel(owner.account.Life)
	} else {
		a.Life, out.end = context.WithDeadline(owner.account.Life, t.Expires)
	}
	return out, nil
}

// replace puts a state in force and ends the lives of what it does not have any
// more. Who asks after that gets the new one.
func (s *Store) replace(next *state) {
	last := s.state.Swap(next)
	if !last.on {
		last.end()
	}
	for name, e := range last.entries {
		now := next.entries[name]
		if now == e {
			continue
		}
		if now != nil && now.record.onlySecretsDiffer(&e.record) {
			e.end(&telemetry.Rotated{Next: now.account})
		} else {
			e.end(nil)
		}
		if e.endOlder != nil {
			e.endOlder()
		}
	}
	for id, t := range last.tokens {
		if next.tokens[id] != t {
			t.end()
		}
	}
}

// wrong is the answer to a name that does not exist and to a secret that does
// not fit alike.
const wrong = "unknown account, or the secret does not fit"

// Authenticate returns the account of a user and its secret, which comes from
// the address. Without accounts it is Anyone. Its error is a *telemetry.Denial.
// It may take tens of milliseconds for people, and longer when many come.
func (s *Store) Authenticate(ctx context.Context, user, password string, from netip.Addr) (*telemetry.Account, error) {
	st, start := s.state.Load(), time.Now()
	if !st.on {
		return st.anyone, nil
	}
	if strings.HasPrefix(password, tokenPrefix) {
		return s.byToken(st, user, password, from, start)
	}
	if password == "" {
		return nil, s.deny(&telemetry.Denial{Reason: telemetry.DeniedMissing, Detail: "this gateway has accounts: give the name of one and its secret"})
	}
	e := st.entries[user]
	if e == nil || e.secret == nil || e.record.Disabled {
		if e == nil {
			// As long as a person's takes, so that the time tells nothing.
			if denial := s.compute(ctx, s.nobody, "", from, new(bool)); denial != nil {
				return nil, s.deny(denial)
			}
		}
		return nil, s.fail(from, start)
	}
	if e.secret.slow {
		return s.person(ctx, e, password, from, start)
	}
	if e.secret.fits(password) {
		return e.account, nil
	}
	if e.before != nil && time.Now().Before(e.record.PreviousUntil) && e.before.fits(password) {
		return e.earlier, nil
	}
	return nil, s.fail(from, start)
}

// person checks a password that somebody has chosen.
func (s *Store) person(ctx context.Context, e *entry, password string, from netip.Addr, start time.Time) (*telemetry.Account, error) {
	mac := hmac.New(sha256.New, s.key[:])
	mac.Write([]byte(password))
	var sum [sha256.Size]byte
	mac.Sum(sum[:0])
	if p := e.proved.Load(); p != nil && start.Before(p.until) && hmac.Equal(p.mac[:], sum[:]) {
		return e.account, nil
	}
	if len(password) > maxPassword {
		return nil, s.fail(from, start)
	}
	right := false
	if denial := s.compute(ctx, e.secret, password, from, &right); denial != nil {
		return nil, s.deny(denial)
	}
	if !right {
		return nil, s.fail(from, start)
	}
	e.proved.Store(&proof{mac: sum, until: start.Add(remembered)})
	return e.account, nil
}

// compute checks a slow hash, unless the address has to wait or there are too
// many already.
func (s *Store) compute(ctx context.Context, hash *sealed, password string, from netip.Addr, right *bool) *telemetry.Denial {
	if wait := s.slow.wait(from, time.Now()); wait > 0 {
		return &telemetry.Denial{Reason: telemetry.DeniedSlow, Detail: "too many wrong passwords from this address: wait", After: wait}
	}
	if !s.slots.do(ctx, func() { *right = hash.fits(password) }) {
		return &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: "too many passwords are being checked: try again", After: 5 * time.Second}
	}
	return nil
}

// fail notes a wrong secret and says when it may be answered.
func (s *Store) fail(from netip.Addr, start time.Time) error {
	penalty := s.slow.failed(from, start)
	return s.deny(&telemetry.Denial{Reason: telemetry.DeniedWrong, Detail: wrong, Until: start.Add(penalty)})
}

func (s *Store) deny(d *telemetry.Denial) error {
	s.metrics.denied(d.Reason)
	return d
}

// Token returns the account that a token acts for.
func (s *Store) Token(text string, from netip.Addr) (*telemetry.Account, error) {
	st := s.state.Load()
	if !st.on {
		return st.anyone, nil
	}
	return s.byToken(st, "", text, from, time.Now())
}

func (s *Store) byToken(st *state, user, text string, from netip.Addr, start time.Time) (*telemetry.Account, error) {
	id, secret, ok := strings.Cut(strings.TrimPrefix(text, tokenPrefix), "_")
	t := st.tokens[id]
	if !ok || t == nil || !t.hash.fits(secret) || t.owner.record.Disabled || user != "" && user != t.owner.account.Name {
		return nil, s.fail(from, start)
	}
	if !t.Expires.IsZero() && !start.Before(t.Expires) {
		return nil, s.deny(&telemetry.Denial{Reason: telemetry.DeniedExpired, Detail: "the token ended on " + t.Expires.Format(time.DateOnly)})
	}
	return t.account, nil
}

// Certificate returns the account that a client certificate names: its common
// name, else the first of its DNS names that is one. The certificate must have
// been verified; people do not come with one.
func (s *Store) Certificate(certificate *x509.Certificate) (*telemetry.Account, error) {
	st := s.state.Load()
	if !st.on {
		return st.anyone, nil
	}
	for _, name := range append([]string{certificate.Subject.CommonName}, certificate.DNSNames...) {
		e := st.entries[name]
		if e == nil || e.record.Role.Person() || e.record.Disabled {
			continue
		}
		return e.account, nil
	}
	return nil, s.deny(&telemetry.Denial{Reason: telemetry.DeniedWrong, Detail: fmt.Sprintf("the certificate of %q names no account of a device or program", certificate.Subject.CommonName)})
}
