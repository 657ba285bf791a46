package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

// Bounds of the centre's side.
const (
	maxRequests  = 8                // readings that are decoded at a time; others wait
	bodyPatience = 2 * time.Minute  // for a body that comes slowly
	stranger     = 2 * time.Minute  // without a word before another log takes over a name
	odd          = time.Minute      // between clocks is told
	saveEvery    = 10 * time.Second // a checkpoint
)

// Door is what a Receiver needs of the gateway that it is part of.
type Door struct {
	Gateway string // its name
	// Decode returns the readings of lines of the log.
	Decode func(lines []byte) ([]telemetry.Reading, error)
	// Grows is by how much a reading's line may be longer here, apart from its delay.
	Grows func(r *telemetry.Reading) int
	// Receive gives readings their site and returns the places of those that are to be
	// written; see intake.Receive.
	Receive func(source string, readings []telemetry.Reading, done func(error)) []int
	// Accept takes a heartbeat in, as any source's reading.
	Accept func(source string, readings []telemetry.Reading, done func(error))
	// SetAside keeps what cannot be used.
	SetAside func(letter telemetry.DeadLetter, done func(error))
	// Step writes steps of warnings, End clears those of a gateway that are not among
	// the ids. Steps that are known are passed over.
	Step func(ctx context.Context, steps []telemetry.Transition) error
	End  func(ctx context.Context, gateway string, but map[string]bool) error
	// Stands reports whether a warning is on the list and not over.
	Stands func(id string) bool

	// Partitions are those of the readings log, one at least, PartitionOf that of a
	// site.
	Partitions  []Partition
	PartitionOf func(site string) int
	// Shared says that another Receiver may have written to the log until now, of which
	// something may still arrive.
	Shared bool
	// Load and Save keep the checkpoint.
	Load func(ctx context.Context) ([]byte, error)
	Save func(ctx context.Context, text []byte) error
	// Started reports whether the log has the start of this gateway.
	Started func() bool
	Now     func() time.Time // wall clock

	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// A Partition is one of the readings log.
type Partition struct {
	// Append writes records in one frame, of that id where there is one; see
	// spool.AppendOnce. Its error is none of Unwritten's when they may be on disk all
	// the same; then There is the frame that has its id already, when that is known.
	Append    func(id string, records []telemetry.Reading, done func(error))
	Unwritten func(err error) bool
	There     func(err error) (frame uint64, known bool)
	// Scan calls each with the records of the kind _uplink of each frame from a
	// sequence on, up to the newest, and with what decodes the whole frame, sources
	// included.
	Scan func(ctx context.Context, from uint64, each func(records []telemetry.Reading, frame func() ([]telemetry.Reading, error))) error
	// Last is the sequence of the newest frame; what lies before Commit is not needed
	// any more.
	Last   func() uint64
	Commit func(ctx context.Context, seq uint64) error
}

// A Receiver takes what gateways push: it is an http.Handler for what lies below Path.
type Receiver struct {
	d       Door
	press   *press
	metrics *taking
	slots   chan struct{}

	// writing is held for reading from before readings are appended until the memory
	// knows of them, so that a checkpoint knows of all frames that it stands behind.
	writing sync.RWMutex
	beats   chan beat

	mu      sync.Mutex
	memory  memory
	changed bool     // since the checkpoint
	at      []uint64 // frames of the checkpoint, by partition
	before  []uint64 // of the one before it
	unsure  []doubt  // by partition
	guests  map[string]*guest
}

// A doubt is that a partition may have records of which the memory does not know.
type doubt struct {
	is    bool
	since uint64 // they are behind this frame
}

// raise makes a doubt about what is behind a frame.
func (d *doubt) raise(since uint64) {
	if d.is {
		since = min(since, d.since)
	}
	*d = doubt{true, since}
}

// A beat is a heartbeat on its way into the log, which a hello does not wait for.
type beat struct {
	gateway string
	reading telemetry.Reading
}

// maxBeats is how many heartbeats wait; others are dropped and counted.
const maxBeats = 1024

// A guest is what is known of a gateway besides the memory.
type guest struct {
	turn sync.Mutex // one request for a log after the other

	// The rest is guarded by Receiver.mu.
	epoch   string
	heard   time.Time
	address string
	state   State
	offset  time.Duration
	oddly   bool            // its clock, and that was told
	said    map[string]bool // refusals that were told, until it is taken again
}

// NewReceiver makes a receiver; what the log knows of gateways is read by it. Close
// gives back what it holds.
func NewReceiver(ctx context.Context, d Door) (*Receiver, error) {
	r := &Receiver{
		d: d, metrics: newTaking(d.Registerer), slots: make(chan struct{}, maxRequests), beats: make(chan beat, maxBeats),
		unsure: make([]doubt, len(d.Partitions)), guests: map[string]*guest{},
	}
	text, err := d.Load(ctx)
	if err == nil {
		r.memory, r.at, err = decodeCheckpoint(text, len(d.Partitions))
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		d.Logger.Error("how far gateways have pushed cannot be read; it is taken from the log and from what they say", "error", err)
		r.memory, r.at, _ = decodeCheckpoint(nil, len(d.Partitions))
	}
	r.before = make([]uint64, len(r.at))
	if err := r.scan(ctx); err != nil {
		return nil, err
	}
	if r.press, err = newPress(); err != nil {
		return nil, err
	}
	return r, nil
}

// Close frees memory; it is called when no request comes any more.
func (r *Receiver) Close() error {
	r.press.close()
	return nil
}

// scan takes in what the log has written since the checkpoint.
func (r *Receiver) scan(ctx context.Context) error {
	for n := range r.d.Partitions {
		last := r.d.Partitions[n].Last()
		r.at[n] = min(r.at[n], last)
		if r.at[n] < last {
			if err := r.read(ctx, n, r.at[n]+1); err != nil {
				return err
			}
		}
		if r.d.Shared {
			r.unsure[n].raise(last)
		}
	}
	r.memory.conclude()
	return nil
}

// read takes in what a partition has from a frame on.
func (r *Receiver) read(ctx context.Context, n int, from uint64) error {
	err := r.d.Partitions[n].Scan(ctx, from, func(records []telemetry.Reading, frame func() ([]telemetry.Reading, error)) {
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range records {
			r.memory.fold(&records[i], frame)
		}
		r.changed = true
	})
	if err != nil {
		return fmt.Errorf("read how far gateways have pushed: %w", err)
	}
	return nil
}

// Run keeps checkpoints until ctx ends, and a last one then.
func (r *Receiver) Run(ctx context.Context) error {
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	failing := false
	for first := true; ; first = false {
		if !first || !r.d.Shared { // in doubt from the start, the log is looked at at once
			select {
			case <-ctx.Done():
				last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
				defer cancel()
				return r.save(last)
			case b := <-r.beats:
				r.d.Accept(source(b.gateway), []telemetry.Reading{b.reading}, nil)
				continue
			case <-tick.C:
			}
		}
		err := errors.Join(r.settle(ctx), r.save(ctx))
		if err != nil && ctx.Err() == nil && !failing {
			r.d.Logger.Error("how far gateways have pushed cannot be kept, trying again", "error", err)
		}
		failing = err != nil
	}
}

// save writes a checkpoint and gives the frames before the last one free: should the
// disk damage the newest, the one before it does.
func (r *Receiver) save(ctx context.Context) error {
	r.writing.Lock()
	r.mu.Lock()
	at := make([]uint64, len(r.at))
	for n := range at {
		at[n] = r.d.Partitions[n].Last()
		if r.unsure[n].is {
			at[n] = min(at[n], r.unsure[n].since)
		}
	}
	changed, same := r.changed || !slices.Equal(r.before, r.at), !r.changed
	text, err := r.memory.encode(at)
	r.changed = false
	r.mu.Unlock()
	r.writing.Unlock()
	if err == nil && changed {
		err = r.d.Save(ctx, text)
	}
	r.mu.Lock()
	if err != nil {
		r.changed = true
		r.mu.Unlock()
		return err
	}
	r.before = r.at
	for n := range at {
		at[n] = max(at[n], r.at[n])
	}
	r.at = at
	if same {
		r.before = r.at // nothing was pushed: both checkpoints say what the log says up to here
	}
	free := slices.Clone(r.before)
	r.mu.Unlock()
	var errs []error
	for n, seq := range free {
		errs = append(errs, r.d.Partitions[n].Commit(ctx, seq))
	}
	return errors.Join(errs...)
}

// ServeHTTP implements http.Handler.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	answer, err := r.serve(w, request)
	if err == nil {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer) // who asked is gone otherwise
		return
	}
	var refused *refusal
	if !errors.As(err, &refused) {
		w.Header().Set("Retry-After", "1")
		refused = refuse(http.StatusServiceUnavailable, reasonFull, "%v", err)
	}
	r.metrics.refusals.WithLabelValues(refused.Reason).Inc()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(refused.status)
	_ = json.NewEncoder(w).Encode(refused)
}

func (r *Receiver) serve(w http.ResponseWriter, request *http.Request) (any, error) {
	what := strings.TrimPrefix(request.URL.Path, Path)
	if !slices.Contains([]string{"hello", logReadings, logWarnings}, what) {
		return nil, refuse(http.StatusNotFound, reasonPath, "there is no %s; expected hello, readings or warnings below %s", request.URL.Path, Path)
	}
	if request.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, refuse(http.StatusMethodNotAllowed, reasonMethod, "%s does not take %s; expected POST", request.URL.Path, request.Method)
	}
	if got := request.Header.Get(versionHeader); got != version {
		r.tell(nobody, reasonVersion, fmt.Sprintf("a gateway pushes in version %q of the format; this one takes %s", got, version))
		return nil, refuse(http.StatusBadRequest, reasonVersion, "version %q of the format is not taken; expected %s: upgrade the older of the two gateways", got, version)
	}
	if !r.d.Started() {
		w.Header().Set("Retry-After", "1")
		return nil, refuse(http.StatusServiceUnavailable, reasonStarting, "the centre is starting")
	}
	// A body comes as slowly as the line of the field lets it.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyPatience))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * bodyPatience))
	body, err := io.ReadAll(http.MaxBytesReader(w, request.Body, maxBody))
	if err != nil {
		if _, large := errors.AsType[*http.MaxBytesError](err); large {
			return nil, refuse(http.StatusRequestEntityTooLarge, reasonTooLarge, "the body has more than %d bytes", maxBody)
		}
		return nil, refuse(http.StatusBadRequest, reasonBody, "read the body: %v", err)
	}
	switch what {
	case "hello":
		return r.hello(request, body)
	case logReadings:
		return r.readings(request, body)
	}
	return r.warnings(request, body)
}

// mayBe returns why the account of a request may not push as a gateway, or nil.
func (r *Receiver) mayBe(request *http.Request, gateway string) error {
	switch account := telemetry.AccountOf(request.Context()); {
	case !telemetry.ValidName(gateway):
		return refuse(http.StatusBadRequest, reasonName, "gateway name %q is not a name of letters, digits and ._:-", gateway)
	case gateway == r.d.Gateway:
		r.tell(gateway, reasonName, "a gateway of this gateway's own name pushes here")
		return refuse(http.StatusForbidden, reasonName, "gateway %q is the centre's own name: a gateway does not push to itself, and two need two names", gateway)
	case account != nil && account.Role == telemetry.RoleGateway && account.Name != gateway:
		r.tell(gateway, reasonName, fmt.Sprintf("account %q pushes as gateway %q", account.Name, gateway))
		return refuse(http.StatusForbidden, reasonName, "account %q is that of the gateway of its own name, not of %q", account.Name, gateway)
	}
	return nil
}

// guest returns the guest of that name, for a log of that epoch. With a hello a log may
// begin.
func (r *Receiver) guest(request *http.Request, gateway, epoch string, hello *Hello) (*guest, error) {
	if err := r.mayBe(request, gateway); err != nil {
		return nil, err
	}
	if !telemetry.ValidName(epoch) {
		return nil, refuse(http.StatusBadRequest, reasonName, "epoch %q is not the name of a log", epoch)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.guests[gateway]
	if g == nil {
		if len(r.guests) >= maxMembers {
			return nil, refuse(http.StatusServiceUnavailable, reasonMany, "%d gateways push here already", maxMembers)
		}
		g = &guest{}
		r.guests[gateway] = g
	}
	now := time.Now()
	if g.epoch != epoch {
		renamed := hello != nil && hello.Was != "" && hello.Was == g.epoch
		if g.epoch != "" && !renamed && now.Sub(g.heard) < stranger {
			r.tellLocked(gateway, reasonTwo, fmt.Sprintf("two gateways push as %q, from %s and %s: each log is taken while the other is silent for %s; give one another name", gateway, g.address, addressOf(request), stranger))
			return nil, refuse(http.StatusConflict, reasonTwo, "another log is pushed as gateway %q, from %s, %s ago: two gateways have one name, or this one was replaced less than %s ago", gateway, g.address, now.Sub(g.heard).Round(time.Second), stranger)
		}
		if hello == nil {
			return nil, refuse(http.StatusConflict, reasonPlace, "gateway %q has not said hello for this log", gateway)
		}
		g.epoch = epoch
	}
	g.heard, g.address = now, addressOf(request)
	r.metrics.heard.WithLabelValues(gateway).Set(float64(now.UnixMilli()) / 1000)
	return g, nil
}

// addressOf is where a request comes from, for people: of one that another machine of
// the centre hands on, what that says as well.
func addressOf(request *http.Request) string {
	if first, err := netip.ParseAddr(request.Header.Get("X-Forwarded-For")); err == nil {
		return first.String() + " by way of " + request.RemoteAddr
	}
	return request.RemoteAddr
}

// nobody stands for gateways whose name is not known; it is no name.
const nobody = "-"

// tell tells a refusal of a gateway once, until it is taken again.
func (r *Receiver) tell(gateway, reason, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tellLocked(gateway, reason, text)
}

func (r *Receiver) tellLocked(gateway, reason, text string) {
	g := r.guests[gateway]
	if g == nil {
		if len(r.guests) >= maxMembers {
			return
		}
		g = &guest{}
		r.guests[gateway] = g
	}
	if g.said[reason] {
		return
	}
	if g.said == nil {
		g.said = map[string]bool{}
	}
	g.said[reason] = true
	r.d.Logger.Warn(text)
}

// Guests returns the gateways that have pushed since the start, by name.
func (r *Receiver) Guests() []Guest {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Guest, 0, len(r.guests))
	for _, name := range slices.Sorted(maps.Keys(r.guests)) {
		g := r.guests[name]
		if g.epoch == "" {
			continue
		}
		out = append(out, Guest{Gateway: name, Version: g.state.Version, Heard: g.heard.UTC(), Address: g.address,
			LagFrames: g.state.LagFrames, LagSeconds: g.state.LagSeconds, ClockOffset: g.offset.Seconds()})
	}
	return out
}

// A Guest is how a gateway that pushes is, as it said last.
type Guest struct {
	Gateway     string    `json:"gateway"`
	Version     string    `json:"version"`
	Heard       time.Time `json:"heard"`
	Address     string    `json:"address"`
	LagFrames   float64   `json:"lag_frames"`
	LagSeconds  float64   `json:"lag_s"`
	ClockOffset float64   `json:"clock_offset_s"`
}
