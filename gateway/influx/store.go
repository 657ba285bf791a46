package influx

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
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	"github.com/influxdata/influxdb-client-go/v2/api"
	"github.com/prometheus/client_golang/prometheus"
)

// errorHeader is where InfluxDB 1.x repeats the error of its JSON body, and
// where the client reads it.
const errorHeader = "X-Influxdb-Error"

// maxAnswerBytes bounds what is read of an answer that is an error.
const maxAnswerBytes = 64 << 10

// A Store is an open InfluxDB, inside or elsewhere. Its methods are safe for
// concurrent use.
type Store struct {
	cfg     Config
	dir     string
	address string // for messages
	base    string // the server's URL without a slash at its end
	log     *slog.Logger
	metrics *metrics

	lock     *os.File
	engine   *engine // nil when the server is elsewhere
	census   *census // of its files; Run's once it runs
	ingest   http.Handler
	listener net.Listener  // nil when nothing is listened on
	slots    chan struct{} // bounds the queries of the port
	patience time.Duration // with clients that read answers; see answerPatience

	accounts   Authenticator // nil: nobody is asked
	encryption *tls.Config   // nil: plain HTTP

	client    influxdb2.Client
	writer    api.WriteAPIBlocking
	reader    *http.Client
	transport *http.Transport // of a server elsewhere
	notBefore atomic.Int64    // Unix nanoseconds; see waitTurn

	inflight sync.RWMutex // held for reading by whoever uses the engine
	closed   bool
	down     error       // why the engine is not open, after a failed restart
	sick     atomic.Bool // the engine cannot write until it is opened again

	space   func(dir string) (free, total uint64, err error)
	deleted map[string]time.Time // by kind, up to where the patrol has deleted
	short   bool                 // the disk was below the watermark at the last patrol
}

// Open opens the store: the embedded engine in dir and its port, or the client
// of the server at cfg.URL, which need not be reachable yet. ingest handles
// writes that arrive on the port; nil refuses them. The port answers once Run
// is running.
func Open(dir string, cfg Config, reg prometheus.Registerer, ingest http.Handler) (*Store, error) {
	if faults := cfg.Validate(); len(faults) > 0 {
		return nil, fmt.Errorf("configure InfluxDB: %s", faults[0])
	}
	s := &Store{
		cfg:      cfg,
		dir:      dir,
		log:      slog.Default(),
		ingest:   ingest,
		slots:    make(chan struct{}, maxPortQueries),
		patience: answerPatience,
		space:    freeSpace,
		deleted:  map[string]time.Time{},
	}
	if cfg.URL != "" {
		s.connect(cfg.URL)
		s.metrics = newMetrics(reg)
		return s, nil
	}
	s.cfg.Bucket = Database
	if err := s.openInside(); err != nil {
		return nil, err
	}
	s.metrics = newMetrics(reg)
	if err := s.engine.damage(); err != nil {
		s.log.Error("part of the stored readings cannot be read", "err", err)
	}
	return s, nil
}

func (s *Store) openInside() (err error) {
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	if s.lock, err = lockFolder(s.dir); err != nil {
		return err
	}
	if s.cfg.Listen != Off {
		if s.listener, err = net.Listen("tcp", s.cfg.Listen); err != nil {
			if errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("influx.listen: %s is in use by another program: stop it or choose another port", s.cfg.Listen)
			}
			return fmt.Errorf("influx.listen: %w", err)
		}
	}
	s.census = &census{dir: s.dir}
	if err := s.census.compare(s.log); err != nil {
		return err
	}
	if s.engine, err = openEngine(s.dir, s.cfg, s.log); err != nil {
		return err
	}
	s.address = s.dir
	s.useClient(insideURL, "", inside{s.toEngine})
	return nil
}

// toEngine hands a request to the engine as it is now; see restart.
func (s *Store) toEngine(w http.ResponseWriter, r *http.Request) { s.engine.handler.ServeHTTP(w, r) }

// release gives back the port and the folder.
func (s *Store) release() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

// usable returns nil when the store can be used, to whoever holds inflight.
func (s *Store) usable() error {
	if s.closed {
		return ErrClosed
	}
	return s.down
}

func (s *Store) connect(address string) {
	s.address = strings.TrimSuffix(address, "/")
	s.transport = http.DefaultTransport.(*http.Transport).Clone()
	s.transport.MaxIdleConnsPerHost = 4
	s.transport.ResponseHeaderTimeout = queryTimeout
	s.useClient(s.address, s.cfg.Token, s.transport)
}

// useClient makes influxdb-client-go and the reader speak over the transport.
func (s *Store) useClient(base, token string, transport http.RoundTripper) {
	s.base = base
	// A redirected POST would become a GET, and its 200 would count as stored.
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	options := influxdb2.DefaultOptions().
		SetApplicationName("haidang").
		SetPrecision(time.Nanosecond).
		SetMaxRetries(0).
		SetHTTPClient(&http.Client{Transport: stored{transport}, CheckRedirect: stay})
	s.client = influxdb2.NewClientWithOptions(base, token, options)
	s.writer = s.client.WriteAPIBlocking(s.cfg.Org, s.cfg.Bucket)
	s.reader = &http.Client{Transport: transport, CheckRedirect: stay}
}

// stored takes no answer to a write for success but the one that InfluxDB
// gives: a hotel's or a telephone company's login page answers 200 to anything.
// It also puts the words of an error where the client looks for them.
type stored struct{ http.RoundTripper }

func (t stored) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	switch {
	case response.StatusCode/100 == 2 && response.StatusCode != http.StatusNoContent:
		response.Body.Close()
		return nil, fmt.Errorf("answered %s instead of 204: this is not InfluxDB's write API", response.Status)
	case response.StatusCode >= 400 && response.Header.Get(errorHeader) == "":
		body, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
		response.Body.Close()
		response.Body = io.NopCloser(bytes.NewReader(body))
		var a answer
		if json.Unmarshal(body, &a) == nil {
			response.Header.Set(errorHeader, a.Error)
		}
	}
	return response, nil
}

// Addr is where the port listens, nil when it does not.
func (s *Store) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Run serves the port and looks after retention and the disk until ctx is done.
// It is to be called once.
func (s *Store) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var patrol sync.WaitGroup
	if s.engine != nil {
		patrol.Go(func() { s.patrolUntil(ctx) })
		patrol.Go(func() { s.census.count(ctx, s.log) })
	}
	err := s.serve(ctx)
	cancel()
	patrol.Wait()
	return err
}

// Ready returns nil when the store can take writes as far as can be told
// without writing.
func (s *Store) Ready(ctx context.Context) error {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if err := s.usable(); err != nil {
		return err
	}
	if s.sick.Load() {
		return fmt.Errorf("InfluxDB in %s cannot write and is about to be opened again", s.dir)
	}
	if s.engine != nil {
		return s.engine.damage()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+"/ping", nil)
	if err != nil {
		return fmt.Errorf("ping InfluxDB at %s: %w", s.address, err)
	}
	response, err := s.reader.Do(request)
	if err != nil {
		return fmt.Errorf("ping InfluxDB at %s: %w", s.address, err)
	}
	defer response.Body.Close()
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("ping InfluxDB at %s: answered %s instead of 204", s.address, response.Status)
	}
	return nil
}

// Close ends running queries, waits for running writes and closes the engine.
// Run must have returned.
func (s *Store) Close() error {
	s.stopQueries()
	s.inflight.Lock()
	defer s.inflight.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.client.Close()
	if s.transport != nil {
		s.transport.CloseIdleConnections()
	}
	errs := []error{s.release()}
	if s.engine != nil && s.down == nil {
		errs = append(errs, s.engine.close())
	}
	return errors.Join(errs...)
}

// stopQueries ends the queries that run in the engine and refuses new ones.
func (s *Store) stopQueries() {
	s.inflight.RLock()
	defer s.inflight.RUnlock()
	if s.engine != nil && s.usable() == nil {
		s.engine.stopQueries()
	}
}
