package ais

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/drivers/link"
	"haidang/gateway/telemetry"
)

// asideEvery is the least time between two refused lines of one reason that
// are set aside; all are counted.
const asideEvery = time.Minute

// A Receiver takes the sentences of one link and hands its readings to the
// intake.
type Receiver struct {
	cfg    Config
	target link.Target
	source string
	fleet  *Fleet
	policy Policy
	intake telemetry.Intake
	log    *slog.Logger
	m      *metrics

	forwards []*forward
	rounds   *rounds // of what is forwarded

	mu      sync.Mutex
	addr    string // of the open link
	asides  [reasonCount]time.Time
	refused time.Time // when a refused connection was last logged

	// linkMu is held while a link reading is handed over, so that their order
	// in the log is the order of events.
	linkMu sync.Mutex
	up     bool // what the last link reading said
	told   bool // a link reading was sent
	peers  int
}

// New makes a receiver and registers its metrics, labelled with its source.
// All receivers of a gateway share one fleet. The error lists what is wrong in
// the configuration.
func New(cfg Config, fleet *Fleet, intake telemetry.Intake, reg prometheus.Registerer, logger *slog.Logger) (*Receiver, error) {
	var errs []error
	for _, f := range cfg.Validate() {
		errs = append(errs, errors.New(f.String()))
	}
	if len(errs) > 0 {
		return nil, fmt.Errorf("ais %q: %w", cfg.Name, errors.Join(errs...))
	}
	target, err := link.Parse(cfg.connect())
	if err != nil {
		return nil, fmt.Errorf("ais %q: %w", cfg.Name, err)
	}
	source := "ais." + cfg.Name
	r := &Receiver{
		cfg: cfg, target: target, source: source, intake: intake, fleet: fleet, policy: cfg.policy(target.Scheme == link.File),
		log: logger.With("source", source), m: newMetrics(source, reg), rounds: newRounds(),
	}
	for _, to := range cfg.Forward {
		f, err := newForward(to, r.m)
		if err != nil {
			return nil, fmt.Errorf("ais %q: %w", cfg.Name, err)
		}
		r.forwards = append(r.forwards, f)
	}
	return r, nil
}

// Source is the name under which the readings are handed over: ais.<name>.
func (r *Receiver) Source() string { return r.source }

// Addr is the address of the open link, with the port that the system chose;
// empty while it is not open.
func (r *Receiver) Addr() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.addr
}

// Run opens the link and takes in what arrives until the context ends or a
// file has been read to its end (nil), or the link breaks (an error that names
// it). It does not try again: run it again after a pause.
//
// The link's state is sent as a reading of the device that has the receiver's
// name, when it changes: a connection made or lost; for listen:// the first
// talker that comes and the last that goes; for udp:// and file:// the socket
// or file opened and closed. A shutdown is no change.
func (r *Receiver) Run(ctx context.Context) error {
	line, err := link.Open(ctx, r.target, link.Options{
		MaxPeers: r.cfg.MaxConnections,
		Idle:     r.cfg.Idle.Std(),
		Refused:  r.refuse,
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		r.state(false, err)
		return fmt.Errorf("ais %q: %w", r.cfg.Name, err)
	}
	r.setAddr(line.Addr())
	defer r.setAddr("")
	if r.target.Scheme != link.Listen {
		r.state(true, nil)
	}
	var forwarding sync.WaitGroup
	forwardCtx, stop := context.WithCancel(ctx)
	for _, f := range r.forwards {
		f.running.Store(true)
		forwarding.Go(func() { f.run(forwardCtx) })
	}
	err = line.Run(ctx, func(peer string) link.Peer { return r.join(ctx, peer) })
	stop()
	forwarding.Wait()
	if ctx.Err() != nil {
		return nil
	}
	r.state(false, err)
	if err != nil {
		return fmt.Errorf("ais %q: %w", r.cfg.Name, err)
	}
	return nil
}

func (r *Receiver) setAddr(addr string) {
	r.mu.Lock()
	r.addr = addr
	r.mu.Unlock()
}

// refuse counts a talker that found no room, and tells it once in a while.
func (r *Receiver) refuse(peer string) {
	r.m.refused.Inc()
	now := time.Now()
	r.mu.Lock()
	due := now.Sub(r.refused) >= asideEvery
	if due {
		r.refused = now
	}
	r.mu.Unlock()
	if due {
		r.log.Warn("talker refused: there are as many as max_connections allows", "peer", peer)
	}
}

// state sends the link's state when it has changed.
func (r *Receiver) state(up bool, cause error) {
	r.linkMu.Lock()
	defer r.linkMu.Unlock()
	r.tell(up, cause)
}

// tell is state with linkMu held.
func (r *Receiver) tell(up bool, cause error) {
	if r.told && r.up == up {
		return
	}
	r.told, r.up = true, up
	r.intake.Accept(r.source, []telemetry.Reading{telemetry.Link(r.cfg.Name, up, cause)}, nil)
}

// join makes the peer for one talker.
func (r *Receiver) join(ctx context.Context, peer string) link.Peer {
	r.count(ctx, +1)
	if host, _, err := net.SplitHostPort(peer); err == nil {
		peer = host // it may connect anew from another port
	}
	t := &talker{r: r, ctx: ctx, decoder: r.fleet.Decoder(r.source+" "+peer, r.policy)}
	if len(r.forwards) > 0 {
		t.decoder.parser.heard = r.forward
	}
	t.emit = func(reading telemetry.Reading) { t.batch = append(t.batch, reading) }
	return t
}

// forward offers a sentence to the other programs, but one that goes in a
// circle.
func (r *Receiver) forward(sentence []byte) {
	if looped, news := r.rounds.again(sentence, time.Now()); looped {
		for _, f := range r.forwards {
			f.looped.Inc()
		}
		if news {
			r.log.Warn("a forwarded sentence comes back again and again and is not forwarded any more: does another program send what we forward to this receiver?", "sentence", string(sentence))
		}
		return
	}
	for _, f := range r.forwards {
		f.offer(sentence)
	}
}

// count keeps the number of talkers; of a listener they are its link's state.
func (r *Receiver) count(ctx context.Context, by int) {
	r.linkMu.Lock()
	defer r.linkMu.Unlock()
	r.peers += by
	r.m.peers.Set(float64(r.peers))
	if r.target.Scheme != link.Listen || ctx.Err() != nil {
		return
	}
	if r.peers == 0 {
		r.tell(false, errors.New("the last connection was closed"))
	} else {
		r.tell(true, nil)
	}
}

// setAside keeps a refused line, at most one of a reason in asideEvery.
func (r *Receiver) setAside(at time.Time, reason Reason, line []byte) {
	detail := asideDetails[reason]
	if detail == "" {
		return
	}
	r.mu.Lock()
	due := at.Sub(r.asides[reason]) >= asideEvery
	if due {
		r.asides[reason] = at
	}
	r.mu.Unlock()
	if due {
		r.intake.SetAside(telemetry.DeadLetter{
			At: at, Source: r.source, Place: r.target.String(),
			Reason: reason.String(), Detail: detail, Bytes: line,
		}.Trim(), nil)
	}
}

// asideDetails tells people what was expected of a line that is set aside. The
// reasons that are not here are ordinary on the air and only counted.
var asideDetails = [reasonCount]string{
	BadChecksum: "the XOR of the bytes between ! and * is not the number after *",
	BadSentence: "want !AIVDM,parts,part,sequence,channel,payload,fill*hh",
	BadTalker:   "want a talker of two capital letters, as in !AIVDM",
	BadPayload:  "want six-bit characters, a message type in 1..27 and a length that the type can have",
	LineTooLong: fmt.Sprintf("the line is longer than %d bytes; its beginning is kept", link.DefaultMaxLine),
}

// A talker is one connection, sender or file: it has its own decoder, because
// stations number the parts of their messages each on its own.
type talker struct {
	r       *Receiver
	ctx     context.Context
	decoder *Decoder
	counted Counts // what the metrics have of the decoder's counts
	now     time.Time
	batch   []telemetry.Reading
	emit    func(telemetry.Reading)
}

// clock is the time of receipt, the same for all lines that arrived together.
func (t *talker) clock() time.Time {
	if t.now.IsZero() {
		t.now = time.Now()
	}
	return t.now
}

// received is the time of receipt of a line, zero of a file: its lines arrive
// all at once.
func (t *talker) received() time.Time {
	if t.r.target.Scheme == link.File {
		return time.Time{}
	}
	return t.clock()
}

func (t *talker) Line(line []byte) {
	if reason := t.decoder.Feed(line, t.received(), t.emit); reason != None {
		t.r.setAside(t.clock(), reason, line)
	}
}

func (t *talker) TooLong(beginning []byte) {
	t.decoder.TooLong()
	t.r.setAside(t.clock(), LineTooLong, beginning)
}

// Pause hands over the readings of the lines that arrived together. It blocks
// while the intake's queue is full, so the talker is then not read.
func (t *talker) Pause(ended bool) {
	t.now = time.Time{}
	if ended {
		t.decoder.End()
	}
	if n := len(t.batch); n > 0 {
		batch := t.batch
		t.batch = make([]telemetry.Reading, 0, n)
		t.r.intake.Accept(t.r.source, batch, func(err error) {
			if err != nil {
				t.r.m.lost.Add(float64(n))
			}
		})
	}
	counts := t.decoder.Counts()
	t.r.m.add(&counts, &t.counted)
	t.counted = counts
	if ended {
		t.r.count(t.ctx, -1)
	}
}
