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
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
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

// startNATS starts a server with JetStream in this process and returns its address.
func startNATS(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "nats.conf")
	text := fmt.Sprintf("server_name: one\nlisten: \"127.0.0.1:-1\"\njetstream: {store_dir: %q, max_file_store: 64GB}\n", t.TempDir())
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	options, err := server.ProcessConfigFile(file)
	if err != nil {
		t.Fatal(err)
	}
	options.NoSigs, options.NoLog = true, true
	ns, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	go ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	if !ns.ReadyForConnections(20 * time.Second) {
		t.Fatal("the NATS server does not start")
	}
	return ns.ClientURL()
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
	cluster  string // where the log is; "": in the folder
	parts    int    // partitions
	spool    *spool.Spool
	intake   *intake.Intake
	receiver *Receiver
	server   *httptest.Server
	said     noise

	serving  sync.RWMutex // held for reading by requests
	mu       sync.Mutex
	board    *telemetry.Board
	account  *telemetry.Account
	misfires int           // so many answers are lost after the work is done
	fails    []failing     // by partition
	holds    chan struct{} // requests wait for it
	epoch    int           // counts changes
	tries    int           // requests for readings that were answered wholly since the last one
}

// A failing is what a partition says instead of writing, though it may have written,
// or will.
type failing struct {
	says  error
	after bool
	later func(id string, records []telemetry.Reading) // instead of writing
}

func newBase(t testing.TB) *base { return newBaseOf(t, 1) }

// newBaseOf makes a centre whose log has so many partitions: several are in a server
// of its own.
func newBaseOf(t testing.TB, partitions int) *base {
	b := &base{t: t, dir: t.TempDir(), board: telemetry.NewBoard(), parts: partitions, fails: make([]failing, partitions)}
	if partitions > 1 {
		b.cluster = startNATS(t)
	}
	b.server = httptest.NewServer(http.HandlerFunc(b.serve))
	t.Cleanup(b.server.Close)
	b.open()
	return b
}

func (b *base) open() {
	b.t.Helper()
	s := openSpool(b.t, b.dir, []string{"uplink.taken", "all"}, func(o *spool.Options) {
		if b.cluster != "" {
			o.Config = spool.Config{URL: b.cluster, Replicas: 1, Partitions: b.parts, MaxBytes: 256 << 20}
			o.Part, o.Gateway = spool.Part{Role: spool.RoleIOC}, "centre"
		}
	})
	catalogue, registry := b.known()
	in := intake.New(intake.Options{
		Readings: s.Partitioned(), Letters: s.DeadLetters(), Clock: intake.NewClock(time.Now, s.Readings().LastReceived()),
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

// partition is one that fails when it is told to.
func (b *base) partition(n int, log *spool.Log[telemetry.Reading]) Partition {
	return Partition{
		Append: func(id string, records []telemetry.Reading, done func(error)) {
			b.mu.Lock()
			f := b.fails[n]
			b.mu.Unlock()
			switch {
			case f.says == nil:
				log.AppendOnce(id, records, done)
			case f.later != nil:
				f.later(id, slices.Clone(records))
				go done(f.says)
			case f.after:
				log.AppendOnce(id, records, func(error) { done(f.says) })
			default:
				go done(f.says)
			}
		},
		Unwritten: func(err error) bool { return errors.Is(err, spool.ErrFull) },
		There: func(err error) (uint64, bool) {
			there, is := errors.AsType[*spool.ThereError](err)
			if !is {
				return 0, false
			}
			return there.Seq, true
		},
		Scan: func(ctx context.Context, from uint64, each func([]telemetry.Reading, func() ([]telemetry.Reading, error))) error {
			if from > log.Last() {
				return nil
			}
			last := log.Last()
			ctx, stop := context.WithCancel(ctx)
			defer stop()
			return log.Follow(ctx, spool.FollowOptions{From: from}, func(_ context.Context, batch *spool.Batch[telemetry.Reading]) error {
				for _, f := range batch.Frames {
					all, err := f.Records()
					if err != nil {
						return err
					}
					var records []telemetry.Reading
					for _, r := range all {
						if r.Kind == telemetry.KindUplink {
							records = append(records, r)
						}
					}
					if len(records) > 0 {
						each(records, func() ([]telemetry.Reading, error) { return all, nil })
					}
				}
				if batch.Last() >= last {
					stop()
				}
				return nil
			})
		},
		Last: log.Last, Commit: func(ctx context.Context, seq uint64) error { return log.Commit(ctx, "uplink.taken", seq) },
	}
}

func (b *base) door(s *spool.Spool, in *intake.Intake) Door {
	var partitions []Partition
	for n := range s.Partitions() {
		partitions = append(partitions, b.partition(n, s.ReadingsOf(n)))
	}
	return Door{
		Gateway: "centre",
		Decode:  func(lines []byte) ([]telemetry.Reading, error) { return spool.NewLineDecoder().Decode(nil, lines) },
		Grows:   func(*telemetry.Reading) int { return 8 },
		Receive: in.Receive, Accept: in.Accept, SetAside: in.SetAside,
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
		Partitions: partitions, PartitionOf: func(site string) int { return spool.PartitionOf(site, b.parts) }, Shared: b.cluster != "",
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
	err := b.spool.Close()
	b.serving.Lock()
	defer b.serving.Unlock()
	if err := errors.Join(err, b.receiver.Close()); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

func (b *base) set(f func()) { b.mu.Lock(); defer b.mu.Unlock(); f() }

func (b *base) serve(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	holds := b.holds
	b.mu.Unlock()
	if holds != nil {
		select { // not while serving: restart would wait for it
		case <-holds:
		case <-r.Context().Done():
			return
		}
	}
	b.serving.RLock()
	defer b.serving.RUnlock()
	b.mu.Lock()
	receiver, account := b.receiver, b.account
	epoch := b.epoch
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if epoch == b.epoch && strings.HasSuffix(r.URL.Path, logReadings) {
			b.tries++
		}
	}()
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
	for n := range b.parts {
		out = append(out, b.takenIn(n)...)
	}
	return out
}

// takenIn are those in a partition.
func (b *base) takenIn(partition int) (out []int) {
	b.t.Helper()
	err := b.spool.ReadingsOf(partition).Replay(b.t.Context(), func(r telemetry.Reading) {
		if r.Kind == "k" {
			n, _ := r.Number("n")
			out = append(out, int(n))
			if want := spool.PartitionOf(r.Site, b.parts); want != partition {
				b.t.Errorf("a reading of site %s is in partition %d, want %d", r.Site, partition, want)
			}
		}
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// wrong says what is wrong with the readings in the log, which should be 1 to n, once
// each and in order in each partition.
func (b *base) wrong(n int) error {
	b.t.Helper()
	if b.parts == 1 {
		return inOrder(b.taken(), n)
	}
	var all []int
	for p := range b.parts {
		numbers := b.takenIn(p)
		for i := range numbers {
			if i > 0 && numbers[i] <= numbers[i-1] {
				return fmt.Errorf("partition %d: number %d comes after %d", p, numbers[i], numbers[i-1])
			}
		}
		all = append(all, numbers...)
	}
	slices.Sort(all)
	return inOrder(all, n)
}

// fail makes a partition fail; -1: all of them.
func (b *base) fail(partition int, f failing) {
	b.set(func() {
		for n := range b.fails {
			if n == partition || partition < 0 {
				b.fails[n] = f
			}
		}
	})
}

// isFailing reports whether a partition does.
func (b *base) isFailing() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.fails, func(f failing) bool { return f.says != nil })
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
func (b *box) receive(calls, each int) { b.t.Helper(); b.receiveLong(calls, each, 0) }

// receiveLong is receive of readings that are so many bytes longer.
func (b *box) receiveLong(calls, each, longer int) {
	b.t.Helper()
	words := strings.Repeat("x", longer)
	for range calls {
		var list []telemetry.Reading
		for range each {
			b.next++
			list = append(list, telemetry.Reading{Device: fmt.Sprintf("d%d", b.next%7), Kind: "k", Time: time.Now(), Quality: telemetry.Good,
				Values: []telemetry.Value{{Name: "n", Number: float64(b.next)}}})
			if longer > 0 {
				last := &list[len(list)-1]
				last.Values = append(last.Values, telemetry.Value{Name: "words", Text: words})
			}
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
