package uplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Patience with the line.
const (
	dialPatience  = 2 * time.Second
	helloPatience = 2500 * time.Millisecond
	deniedPause   = 12 * time.Second // who comes with a wrong secret is answered late
	slowAnswer    = 2 * time.Second  // then a hello asks whether the line is still there
	askAgain      = time.Second      // between two hellos while it is down
	longestAnswer = time.Minute      // of a centre that says hello meanwhile
	beatAtLeast   = time.Second
)

// A line is the connection with the centre: up while hellos are answered.
type line struct {
	cfg     Config
	base    *url.URL
	account string
	press   *press
	limiter *rate.Limiter // nil: no bound
	metrics *sending
	logger  *slog.Logger

	hello func(ctx context.Context, beat bool) (Hello, error)
	kick  chan struct{} // a hello is wanted now

	denied bool // the last hello, for its secret; of keep alone

	mu      sync.Mutex
	trusted []byte                  // what the file of authorities said
	clients map[string]*http.Client // by request, so that none waits behind another
	welcome Welcome
	period  context.Context // while the line is up; nil when it is down
	end     context.CancelFunc
	changed chan struct{} // closed at each change
	said    string        // the last failure that was told
	why     string        // in full
	grief   string        // the last request that was not taken
}

func newLine(cfg Config, account string, p *press, m *sending, logger *slog.Logger) (*line, error) {
	base, err := cfg.address()
	if err != nil {
		return nil, err
	}
	encryption, trusted, err := cfg.encryption()
	if err != nil {
		return nil, err
	}
	l := &line{
		cfg: cfg, base: base, account: account, press: p, metrics: m, logger: logger,
		trusted: trusted, clients: clientsWith(encryption), kick: make(chan struct{}, 1), changed: make(chan struct{}),
	}
	if cfg.MaxRate > 0 {
		l.limiter = rate.NewLimiter(rate.Limit(cfg.MaxRate), max(int(cfg.MaxRate)/4, pace))
	}
	return l, nil
}

// clientsWith makes a client for each request.
func clientsWith(encryption *tls.Config) map[string]*http.Client {
	clients := map[string]*http.Client{}
	for _, request := range []string{"hello", logReadings, logWarnings} {
		dialer := &net.Dialer{Timeout: dialPatience}
		clients[request] = &http.Client{
			// No HTTP/2: one connection for all would let readings go before a warning.
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: encryption.Clone(),
				TLSHandshakeTimeout: dialPatience, MaxIdleConnsPerHost: 1, IdleConnTimeout: 5 * time.Minute, DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return clients
}

// client is the one for a request.
func (l *line) client(what string) *http.Client {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.clients[what]
}

// renew takes over the file of authorities if it has changed: the centre's certificate
// may be of another one now. While the file cannot be used what was before holds, and
// the error says why.
func (l *line) renew() error {
	if l.cfg.CA == "" {
		return nil
	}
	encryption, text, err := l.cfg.encryption()
	if err != nil {
		return fmt.Errorf("the authorities of before hold: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if bytes.Equal(text, l.trusted) {
		return nil
	}
	for _, c := range l.clients {
		c.CloseIdleConnections()
	}
	l.trusted, l.clients = text, clientsWith(encryption)
	return nil
}

// keep asks the centre again and again until ctx ends.
func (l *line) keep(ctx context.Context) {
	defer l.down(nil)
	var beat time.Time
	for ctx.Err() == nil {
		due := time.Since(beat) >= l.cfg.heartbeat()-beatAtLeast/2
		err := l.greet(ctx, due)
		if err == nil && due {
			beat = time.Now()
		}
		l.denied = l.denied && err != nil
		if ctx.Err() != nil {
			return
		}
		pause := l.cfg.heartbeat()
		if err != nil {
			l.down(err)
			pause = askAgain
			var refused *refusal
			if l.denied = errors.As(err, &refused) && refused.status == http.StatusUnauthorized; refused != nil && !refused.passes() {
				pause = min(5*askAgain, max(askAgain, l.cfg.heartbeat())) // it does hear us
			}
		}
		if !l.rest(ctx, pause, err == nil) {
			return
		}
	}
}

// rest waits; with early until somebody wants a hello.
func (l *line) rest(ctx context.Context, d time.Duration, early bool) bool {
	kick := l.kick
	if !early {
		kick = nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-kick:
	}
	return true
}

// greet says hello and notes the answer.
func (l *line) greet(ctx context.Context, beat bool) error {
	select {
	case <-l.kick: // this is the hello that is wanted
	default:
	}
	hello, err := l.hello(ctx, beat)
	if err != nil {
		return err
	}
	body, err := json.Marshal(hello)
	if err != nil {
		return err
	}
	patience := helloPatience
	if l.denied {
		patience = deniedPause
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l.reserve(len(body))
	var welcome Welcome
	if err := l.post(ctx, "hello", bytes.NewReader(body), len(body), &welcome); err != nil {
		return err
	}
	l.metrics.packed["hello"].Add(float64(len(body)))
	l.up(welcome)
	return nil
}

// up notes that the centre has answered.
func (l *line) up(w Welcome) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.welcome = w
	if l.period == nil {
		l.period, l.end = context.WithCancel(context.Background())
		if l.said != "" {
			l.logger.Info("the centre answers again", "centre", w.Gateway, "url", l.cfg.URL)
			l.said, l.why = "", ""
		}
		l.metrics.connected.Set(1)
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// down notes that the centre does not answer, tells it once, and gives up what is on
// its way.
func (l *line) down(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.period != nil {
		l.end()
		l.period = nil
		close(l.changed)
		l.changed = make(chan struct{})
	}
	l.metrics.connected.Set(0)
	for _, c := range l.clients {
		c.CloseIdleConnections() // the line may know nothing of them when it is back
	}
	if err == nil {
		return
	}
	l.metrics.failures.WithLabelValues(reasonOf(err)).Inc()
	l.why = err.Error()
	if said := reasonOf(err); said != l.said {
		l.said = said
		l.logger.Warn("nothing is pushed to the centre, trying again; all is kept for it", "url", l.cfg.URL, "error", err)
	}
}

// complain counts a request that the centre did not take, and tells it once until the
// log's requests are taken again.
func (l *line) complain(err error) {
	l.metrics.failures.WithLabelValues(reasonOf(err)).Inc()
	if reasonOf(err) == reasonPlace {
		return // the sender goes on from where the centre is
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if said := reasonOf(err); said != l.grief {
		l.grief = said
		l.logger.Warn("the centre does not take what is pushed, trying again; all is kept for it", "url", l.cfg.URL, "error", err)
	}
}

// content notes that a request was taken.
func (l *line) content() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.grief = ""
}

// await waits until the line is up and returns what the centre has said. The context
// ends when the line goes down.
func (l *line) await(ctx context.Context) (context.Context, context.CancelFunc, Welcome, error) {
	for {
		l.mu.Lock()
		period, welcome, changed := l.period, l.welcome, l.changed
		l.mu.Unlock()
		if period != nil {
			both, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(period, cancel)
			return both, func() { stop(); cancel() }, welcome, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, Welcome{}, ctx.Err()
		}
	}
}

// refresh asks the centre anew where it is, before await is called again.
func (l *line) refresh(ctx context.Context) {
	l.mu.Lock()
	changed := l.changed
	l.mu.Unlock()
	l.ask()
	select {
	case <-changed:
	case <-ctx.Done():
	}
}

func (l *line) ask() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// send posts a parcel; while there is no answer the line is asked after.
func (l *line) send(ctx context.Context, log string, head *parcel, rest []byte) error {
	text, err := json.Marshal(head)
	if err != nil {
		return err
	}
	packed := l.press.pack(append(append(text, '\n'), rest...))
	ctx, cancel := context.WithTimeout(ctx, longestAnswer+l.lasts(len(packed)))
	defer cancel()
	var body io.Reader = bytes.NewReader(packed)
	if log == logReadings && l.limiter != nil {
		body = &paced{ctx: ctx, from: body, limiter: l.limiter}
	} else {
		l.reserve(len(packed))
	}
	defer l.watch(slowAnswer + l.lasts(len(packed)))()
	if err := l.post(ctx, log, body, len(packed), nil); err != nil {
		return err
	}
	l.metrics.packed[log].Add(float64(len(packed)))
	return nil
}

// watch asks after the line again and again, first after a while, until stop is
// called.
func (l *line) watch(first time.Duration) (stop func()) {
	ended, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		timer := time.NewTimer(first)
		defer timer.Stop()
		for {
			select {
			case <-ended:
				return
			case <-timer.C:
				l.ask()
				timer.Reset(slowAnswer)
			}
		}
	}()
	return func() { close(ended); <-gone }
}

// lasts is how long so many bytes take at the bound of the rate.
func (l *line) lasts(n int) time.Duration {
	if l.limiter == nil {
		return 0
	}
	return time.Duration(float64(n) / float64(l.limiter.Limit()) * float64(time.Second))
}

// post sends a request and decodes its answer. What the centre refuses is a *refusal.
func (l *line) post(ctx context.Context, what string, body io.Reader, size int, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, l.base.JoinPath(what).String(), body)
	if err != nil {
		return err
	}
	request.ContentLength = int64(size)
	request.Header.Set(versionHeader, version)
	request.Header.Set("Content-Type", "application/json")
	if what != "hello" {
		request.Header.Set("Content-Type", "application/x-haidang-uplink")
		request.Header.Set("Content-Encoding", "zstd")
	}
	if l.cfg.Secret != "" {
		request.SetBasicAuth(l.account, l.cfg.Secret)
	}
	response, err := l.client(what).Do(request)
	if err != nil {
		if distrust := l.renew(); distrust != nil {
			return fmt.Errorf("ask the centre: %w; %w", err, distrust)
		}
		return fmt.Errorf("ask the centre: %w", err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("read the answer of the centre: %w", err)
	}
	if response.StatusCode/100 == 2 {
		if into == nil {
			return nil
		}
		if err := json.Unmarshal(text, into); err != nil {
			return fmt.Errorf("read the answer of the centre: %s has no gateway that takes pushes: %w", l.base.Host, err)
		}
		return nil
	}
	return refused(response, text)
}

// refused makes an error of an answer that is none of ours to use.
func refused(response *http.Response, text []byte) error {
	r := &refusal{status: response.StatusCode}
	var answer struct{ Reason, Detail string }
	_ = json.Unmarshal(text, &answer) // it may be anything
	r.Reason, r.Detail = answer.Reason, answer.Detail
	switch {
	case r.status == http.StatusUnauthorized:
		r.Reason, r.Detail = "unauthorized", "the centre does not know uplink.account with uplink.secret"
	case r.status == http.StatusForbidden && r.Reason == "":
		r.Reason, r.Detail = "forbidden", "the account has no right to push: it needs the role gateway ("+answer.Detail+")"
	case r.status == http.StatusNotFound && r.Reason == "":
		r.Reason, r.Detail = "no_centre", "what listens there takes no pushes: set uplink.accept there, or correct uplink.url"
	case r.status == http.StatusServiceUnavailable && r.Reason == "": // of a machine that hands on
		r.Reason = reasonMoving
	case r.Reason == "":
		r.Reason = fmt.Sprintf("http_%d", r.status)
	}
	if r.Detail == "" {
		r.Detail = response.Status
	}
	r.Detail = fmt.Sprintf("the centre refuses: %s", r.Detail)
	return r
}

// reasonOf is a word for counting.
func reasonOf(err error) string {
	var refused *refusal
	if errors.As(err, &refused) {
		return refused.Reason
	}
	return "unreachable"
}

// pace is how much of the readings is handed to the line at a time, in bytes.
const pace = 4 << 10

// A paced reader waits for the rate.
type paced struct {
	ctx     context.Context
	from    io.Reader
	limiter *rate.Limiter
}

// Read implements io.Reader.
func (p *paced) Read(to []byte) (int, error) {
	to = to[:min(len(to), pace, p.limiter.Burst())]
	n, err := p.from.Read(to)
	if n > 0 {
		if waited := p.limiter.WaitN(p.ctx, n); waited != nil {
			return 0, waited
		}
	}
	return n, err
}

// reserve takes so many bytes of the rate without waiting: readings wait the longer.
func (l *line) reserve(n int) {
	if l.limiter == nil {
		return
	}
	for ; n > 0; n -= l.limiter.Burst() {
		l.limiter.ReserveN(time.Now(), min(n, l.limiter.Burst()))
	}
}
