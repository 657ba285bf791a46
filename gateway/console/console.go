package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

const (
	maxConnections = 1024
	maxLocal       = 64              // connections over the attached listener
	stopTime       = 5 * time.Second // for requests under way when the console stops
)

// Sources is where the console's answers come from. Functions that are nil have
// no page: 404. All are called by many goroutines at once.
type Sources struct {
	// Warnings returns the warnings as they stand, the gravest first; cleared
	// ones only when all is true. It and Warning are required.
	Warnings func(all bool) []telemetry.Warning
	// Warning returns one warning.
	Warning func(id string) (telemetry.Warning, bool)
	// History returns the transitions of a warning that are still in the log, the
	// oldest first and a bounded number of them; none for a warning that the log
	// does not know.
	History func(ctx context.Context, id string) ([]telemetry.Transition, error)
	// Act does what an operator asks. telemetry.ErrUnknown is answered with 404,
	// ErrConflict with 409, other errors with 400 and their text; but when the
	// act could not be kept, the error wraps ErrUnavailable: 503.
	Act func(ctx context.Context, act telemetry.Act) (telemetry.Warning, error)
	// Reload reads rules, devices and kinds again and puts them in force. Its
	// error says what is wrong with them, a line each; nothing was changed then.
	Reload func(ctx context.Context) error
	// Devices returns a slice to be written as JSON, of all devices or those of a
	// site or an owner; Device one of them.
	Devices func(site, owner string) any
	Device  func(id string) (any, bool)
	// Series returns the past of a value, the oldest first.
	Series func(ctx context.Context, q SeriesQuery) ([]SeriesPoint, error)
	// DeviceChanges returns what was changed of a device at run time, the newest
	// first.
	DeviceChanges func(id string, limit int) (any, error)
	// SetState and ChangeDevice change a device. Errors are answered as those of
	// Act: telemetry.ErrUnknownDevice with 404.
	SetState     func(ctx context.Context, s telemetry.StateChange) error
	ChangeDevice func(ctx context.Context, d telemetry.DeviceChange) error
	// Admit approves or refuses a device that came by itself; its answer, written as
	// JSON, counts what was held of it: retried and failed.
	Admit func(ctx context.Context, a Admission) (any, error)
	// Rules returns a slice to be written as JSON; RulesDocument what they run on:
	// rules, kinds, devices and zones, nil when there is nothing yet.
	Rules         func() any
	RulesDocument func() any
	// RuleBook is what is read and changed of rule files.
	RuleBook RuleBook
	// Recipients returns how each recipient of warnings fares.
	Recipients func() []Recipient
	// CAP answers below /cap/: the feed and the messages.
	CAP http.Handler
	// CAPPublic lets everybody read below /cap/, without an account.
	CAPPublic bool
	// Uplink takes what other gateways push, below /api/v1/uplink/.
	Uplink http.Handler
	// Health returns how the gateway itself is, to be written as JSON.
	Health func(ctx context.Context) (any, error)
	// DeadLetters returns a slice to be written as JSON, the newest first;
	// DeadLetter one of them, and ActOnLetter as it is after the act.
	DeadLetters func(ctx context.Context, q LetterQuery) (any, error)
	DeadLetter  func(ctx context.Context, id string) (any, error)
	ActOnLetter func(ctx context.Context, act LetterAct) (any, error)
	// Lifecycle is what is told of warnings beyond how they stand.
	Lifecycle Lifecycle
	// Modbus reads or writes instruments by hand: act is read or write, body the
	// JSON that asks for it, by who asks when that is known. An error that wraps
	// ErrUnavailable is the instrument's, others are of the request.
	Modbus func(ctx context.Context, act string, body []byte, by string) (any, error)
	// Ready are the checks of /readyz by name. They honour the context.
	Ready map[string]func(ctx context.Context) error
	// Local are paths that only the attached listener has; see Attach.
	Local map[string]http.Handler
	// Gateway and Version name the program on the page.
	Gateway, Version string
}

// ErrUnavailable is wrapped by an error of Sources.Act when the act is in order
// but the gateway could not keep it.
var ErrUnavailable = errors.New("the gateway cannot do this now")

// Registry is where the console's metrics go and where /metrics come from.
type Registry interface {
	prometheus.Registerer
	prometheus.Gatherer
}

// A Console serves the API and the page.
type Console struct {
	sources    Sources
	log        *slog.Logger
	listener   net.Listener
	server     *http.Server
	local      http.Handler  // the routes, for who is trusted already
	attached   net.Listener  // of the local ones; nil: none
	accounts   Authenticator // nil: nobody is asked
	encryption *tls.Config   // nil: plain HTTP
	hub        *hub
	desktop    *desktop
	backtests  *backtests
	sessions   *sessions
}

// New binds the console's address. Run serves it; a console that is not run is
// closed with Close.
func New(cfg Config, sources Sources, reg Registry, logger *slog.Logger) (*Console, error) {
	if sources.Warnings == nil || sources.Warning == nil {
		return nil, errors.New("console: the sources Warnings and Warning are required")
	}
	if logger == nil {
		logger = slog.Default()
	}
	desktop, err := newDesktop(cfg.Map)
	if err != nil {
		return nil, err
	}
	listener, err := listen(cfg.listen())
	if err != nil {
		return nil, err
	}
	c := &Console{
		sources: sources, log: logger, desktop: desktop, sessions: newSessions(cfg.Session),
		listener:  boundListener(listener, maxConnections),
		hub:       newHub(time.Now(), reg),
		backtests: &backtests{running: map[string]bool{}, checks: make(chan struct{}, maxChecks)},
	}
	host, _, _ := net.SplitHostPort(cfg.listen()) // listen has read it
	mux := c.mux(reg)
	c.server = c.newServer(c.handler(host, mux))
	local := http.NewServeMux()
	local.Handle("/", mux)
	for path, handler := range sources.Local {
		local.Handle(path, handler)
	}
	c.local = local
	return c, nil
}

func (c *Console) newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(c.log.Handler(), slog.LevelWarn),
	}
}

func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("console.listen: %s is in use by another program: stop it or choose another port", address)
	}
	if err != nil {
		return nil, fmt.Errorf("console.listen: %w", err)
	}
	return listener, nil
}

// Addr returns the address that the console listens on.
func (c *Console) Addr() net.Addr { return c.listener.Addr() }

// Notify tells those who follow /api/v1/events of a transition. It does not
// block.
func (c *Console) Notify(w telemetry.Warning) {
	c.desktop.version.Add(1)
	c.hub.notify(&w)
}

// Attach makes Run serve l as well: the same paths for a caller who may do
// everything an administrator may, because the file system let him reach l. It
// is called before Run, at most once; the listener is the console's then.
func (c *Console) Attach(l net.Listener) { c.attached = boundListener(l, maxLocal) }

// Run serves until the context ends, then ends the event streams, gives other
// requests 5 s to finish, and returns nil.
func (c *Console) Run(ctx context.Context) error {
	servers := []*http.Server{c.server}
	served := make(chan error, 2)
	go func() { served <- c.server.Serve(c.front()) }()
	if c.attached != nil {
		local := c.newServer(administrator(c.local))
		servers = append(servers, local)
		go func() { served <- local.Serve(c.attached) }()
	}
	var failed error
	waiting := len(servers)
	select {
	case err := <-served:
		failed = fmt.Errorf("serve the console: %w", err)
		waiting--
	case <-ctx.Done():
	}
	c.hub.close()
	c.sessions.closeAll()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	var stopping sync.WaitGroup
	errs := make([]error, len(servers))
	for i, server := range servers {
		stopping.Go(func() { errs[i] = stop(grace, server) })
	}
	stopping.Wait()
	for range waiting {
		<-served
	}
	return errors.Join(failed, errors.Join(errs...))
}

func stop(grace context.Context, server *http.Server) error {
	err := server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = server.Close() // who has not finished by now is cut off
	}
	if err != nil {
		return fmt.Errorf("stop the console: %w", err)
	}
	return nil
}

// Close gives the address back without having served.
func (c *Console) Close() error {
	err := c.listener.Close()
	if c.attached != nil {
		err = errors.Join(err, c.attached.Close())
	}
	return err
}
