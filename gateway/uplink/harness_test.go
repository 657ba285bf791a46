package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/intake"
	"haidang/gateway/spool"
	"haidang/gateway/telemetry"
)

// A noise is where loggers write.
type noise struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (n *noise) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.b.Write(p)
}

func (n *noise) count(text string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Count(n.b.String(), text)
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func openSpool(t testing.TB, dir string, followers []string, change func(*spool.Options)) *spool.Spool {
	t.Helper()
	o := spool.Options{Dir: dir, Followers: followers, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	s, err := spool.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A base is a centre: a real log, intake and board behind the receiver, over HTTP.
type base struct {
	t        testing.TB
	dir      string
	spool    *spool.Spool
	intake   *intake.Intake
	receiver *Receiver
	server   *httptest.Server
	said     noise

	mu       sync.Mutex
	board    *telemetry.Board
	account  *telemetry.Account
	misfires int           // so many answers are lost after the work is done
	refuses  error         // what Forward says
	after    bool          // though it has written
	holds    chan struct{} // requests wait for it
	paths    []string
}

func newBase(t testing.TB) *base {
	b := &base{t: t, dir: t.TempDir(), board: telemetry.NewBoard()}
	b.server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.server.Close)
	b.open()
	return b
}

func (b *base) open() {
	b.t.Helper()
	s := openSpool(b.t, b.dir, []string{"uplink.taken", "all"}, nil)
	catalogue, registry := b.known()
	in := intake.New(intake.Options{
		Readings: s.Readings(), Letters: s.DeadLetters(), Clock: intake.NewClock(time.Now, s.Readings().LastReceived()),
		Known: intake.Known{Kinds: catalogue, Devices: registry}, Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	r, err := NewReceiver(b.t.Context(), b.door(s, in))
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spool, b.intake, b.receiver = s, in, r
}

func (b *base) known() (*telemetry.Catalogue, *telemetry.Registry) {
	kinds, faults := telemetry.NewCatalogue([]telemetry.Kind{{Name: "k", Values: []telemetry.Quantity{{Name: "n", Min: new(float64)}}}})
	if len(faults) > 0 {
		b.t.Fatal(faults)
	}
	registry, faults := telemetry.NewRegistry([]telemetry.Device{{ID: "at-home", Site: "home"}}, kinds)
	if len(faults) > 0 {
		b.t.Fatal(faults)
	}
	return kinds, registry
}

func (b *base) door(s *spool.Spool, in *intake.Intake) Door {
	return Door{
		Gateway: "centre",
		Decode:  func(lines []byte) ([]telemetry.Reading, error) { return spool.NewLineDecoder().Decode(nil, lines) },
		Grows:   func(*telemetry.Reading) int { return 8 },
		Forward: func(source string, readings []telemetry.Reading, record telemetry.Reading, done func(error)) {
			b.mu.Lock()
			refuses, after := b.refuses, b.after
			b.mu.Unlock()
			switch {
			case refuses == nil:
				in.Forward(source, readings, record, done)
			case after:
				in.Forward(source, readings, record, func(error) { done(refuses) })
			default:
				go done(refuses)
			}
		},
		Unwritten: func(err error) bool { return errors.Is(err, spool.ErrFull) },
		Accept:    in.Accept, SetAside: in.SetAside,
		Step: func(_ context.Context, steps []telemetry.Transition) error { b.step(steps); return nil },
		End: func(_ context.Context, gateway string, but map[string]bool) error {
			for _, w := range b.warnings() {
				if w.Gateway == gateway && w.State != telemetry.Cleared && !but[w.ID] {
					b.mu.Lock()
					end, _ := b.board.End(w.ID, time.Now())
					b.mu.Unlock()
					b.step([]telemetry.Transition{end})
				}
			}
			return nil
		},
		Stands: func(id string) bool {
			b.mu.Lock()
			defer b.mu.Unlock()
			w, ok := b.board.Warning(id)
			return ok && w.State != telemetry.Cleared
		},
		Scan: func(ctx context.Context, from uint64, each func(*telemetry.Reading)) error {
			return s.Readings().Replay(ctx, func(r telemetry.Reading) {
				if r.Kind == telemetry.KindUplink {
					each(&r) // also those before from, which say less
				}
			})
		},
		Last: s.Readings().Last, Commit: func(ctx context.Context, seq uint64) error { return s.Readings().Commit(ctx, "uplink.taken", seq) },
		Load:    func(ctx context.Context) ([]byte, error) { return s.LoadCheckpoint(ctx, "uplink.taken") },
		Save:    func(ctx context.Context, text []byte) error { return s.SaveCheckpoint(ctx, "uplink.taken", text) },
		Started: func() bool { return true }, Now: time.Now,
		Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(&b.said, nil)),
	}
}

func (b *base) step(steps []telemetry.Transition) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range steps {
		s.At = time.Now()
		if next, isNew := b.board.Step(s); isNew {
			b.board.Apply(next)
		}
	}
}

func (b *base) warnings() []telemetry.Warning {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.board.Warnings(true)
}

// restart ends the centre as a crash does for its memory, and opens it again.
func (b *base) restart() {
	b.t.Helper()
	if err := errors.Join(b.spool.Close(), b.receiver.Close()); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

func (b *base) set(f func()) { b.mu.Lock(); defer b.mu.Unlock(); f() }

func (b *base) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	receiver, account, holds := b.receiver, b.account, b.holds
	b.paths = append(b.paths, strings.TrimPrefix(r.URL.Path, Path))
	b.mu.Unlock()
	if holds != nil {
		select {
		case <-holds:
		case <-r.Context().Done():
			return
		}
	}
	if account != nil {
		r = r.WithContext(telemetry.WithAccount(r.Context(), account))
	}
	b.mu.Lock()
	lost := b.misfires > 0 && !strings.HasSuffix(r.URL.Path, "hello")
	if lost {
		b.misfires--
	}
	b.mu.Unlock()
	if lost {
		receiver.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler) // the answer does not arrive
	}
	receiver.ServeHTTP(w, r)
}

// taken are the numbers of the readings in the log, in order.
func (b *base) taken() (out []int) {
	b.t.Helper()
	err := b.spool.Readings().Replay(b.t.Context(), func(r telemetry.Reading) {
		if r.Kind == "k" {
			n, _ := r.Number("n")
			out = append(out, int(n))
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// letters are the reasons of dead letters.
func (b *base) letters() (out []string) {
	b.t.Helper()
	if err := b.spool.DeadLetters().Replay(b.t.Context(), func(l telemetry.DeadLetter) { out = append(out, l.Reason) }); err != nil {
		b.t.Fatal(err)
	}
	return out
}

// A box is a field: a real log and a sender.
type box struct {
	t      testing.TB
	name   string
	dir    string
	config Config
	spool  *spool.Spool
	sender *Sender
	board  *telemetry.Board
	reg    *prometheus.Registry
	said   noise
	next   int
	stop   func()
}

func newBox(t testing.TB, name string, config Config) *box {
	b := &box{t: t, name: name, dir: t.TempDir(), config: config, board: telemetry.NewBoard(), stop: func() {}}
	b.open(nil)
	return b
}

func (b *box) open(change func(*spool.Options)) {
	b.t.Helper()
	b.spool = openSpool(b.t, b.dir, []string{"uplink"}, change)
	s := b.spool
	b.reg = prometheus.NewRegistry()
	var err error
	b.sender, err = NewSender(Options{
		Config: b.config, Gateway: b.name, Readings: logOf(s.Readings()), Warnings: logOf(s.Warnings()),
		Lasting:    b.board.Lasting,
		Load:       func(ctx context.Context) ([]byte, error) { return s.LoadCheckpoint(ctx, "uplink.epoch") },
		Save:       func(ctx context.Context, text []byte) error { return s.SaveCheckpoint(ctx, "uplink.epoch", text) },
		State:      func() State { return State{Version: "1.2.3", SpoolBytes: 10, SpoolMax: 100} },
		Registerer: b.reg, Logger: slog.New(slog.NewTextHandler(&b.said, nil)),
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func logOf[T any](l *spool.Log[T]) Log {
	return Log{
		Last: l.Last, Position: func() uint64 { return l.Position("uplink") },
		Commit: func(ctx context.Context, seq uint64) error { return l.Commit(ctx, "uplink", seq) },
		Follow: func(ctx context.Context, from uint64, accept func(context.Context, []Frame) error) error {
			return l.Follow(ctx, spool.FollowOptions{Name: "uplink", From: from, Manual: true}, func(ctx context.Context, batch *spool.Batch[T]) error {
				var frames []Frame
				for _, f := range batch.Frames {
					frames = append(frames, Frame{Seq: f.Seq, Received: f.Received, Lines: f.Lines})
				}
				return accept(ctx, frames)
			})
		},
	}
}

// run lets the sender run until the returned function is called.
func (b *box) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.sender.Run(ctx) }()
	var once sync.Once
	b.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				b.t.Error(err)
			}
		})
	}
	b.t.Cleanup(b.stop)
}

// restart ends the sender and its log and opens them again.
func (b *box) restart() {
	b.t.Helper()
	b.stop()
	if err := errors.Join(b.spool.Close(), b.sender.Close()); err != nil {
		b.t.Fatal(err)
	}
	b.open(nil)
	b.run()
}

// receive appends numbered readings to the log, so many to a call.
func (b *box) receive(calls, each int) {
	b.t.Helper()
	for range calls {
		var list []telemetry.Reading
		for range each {
			b.next++
			list = append(list, telemetry.Reading{Device: fmt.Sprintf("d%d", b.next%7), Kind: "k", Time: time.Now(), Quality: telemetry.Good,
				Values: []telemetry.Value{{Name: "n", Number: float64(b.next)}}})
		}
		if b.next%3 == 0 {
			list = append(list, telemetry.Reading{Device: b.name, Kind: telemetry.KindTick, Time: time.Now(), Values: []telemetry.Value{{Name: "n", Number: 1}}})
		}
		if err := b.spool.Readings().Append(b.t.Context(), list); err != nil {
			b.t.Fatal(err)
		}
	}
}

// warn appends transitions to the log.
func (b *box) warn(list ...telemetry.Transition) {
	b.t.Helper()
	if err := b.spool.Warnings().Append(b.t.Context(), list); err != nil {
		b.t.Fatal(err)
	}
	for _, t := range list {
		b.board.Apply(t)
	}
}

func (b *box) pushed() bool {
	return b.spool.Readings().Position("uplink") == b.spool.Readings().Last() && b.spool.Warnings().Position("uplink") == b.spool.Warnings().Last()
}

// inOrder reports what is wrong with numbers that should be 1 to n.
func inOrder(numbers []int, n int) error {
	for i, x := range numbers {
		if x != i+1 {
			return fmt.Errorf("number %d stands at place %d of %d", x, i+1, len(numbers))
		}
	}
	if len(numbers) != n {
		return fmt.Errorf("%d numbers, want %d", len(numbers), n)
	}
	return nil
}

// post sends a request by hand.
func (b *base) post(what string, header map[string]string, body []byte) (int, string) {
	b.t.Helper()
	request, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.server.URL+Path+what, bytes.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	request.Header.Set(versionHeader, version)
	request.Header.Set("Content-Encoding", "zstd")
	for name, value := range header {
		request.Header.Set(name, value)
	}
	response, err := b.server.Client().Do(request)
	if err != nil {
		b.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return response.StatusCode, string(text)
}
