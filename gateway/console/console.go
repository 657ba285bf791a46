package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/telemetry"
)

const (
	maxConnections = 256
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
	// Devices and Rules return slices to be written as JSON.
	Devices func() any
	Rules   func() any
	// DeadLetters returns the newest, at most limit.
	DeadLetters func(ctx context.Context, limit int) ([]telemetry.DeadLetter, error)
	// Ready are the checks of /readyz by name. They honour the context.
	Ready map[string]func(ctx context.Context) error
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
	sources  Sources
	log      *slog.Logger
	listener net.Listener
	server   *http.Server
	hub      *hub
	page     *page
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
	page, err := newPage()
	if err != nil {
		return nil, err
	}
	listener, err := listen(cfg.listen())
	if err != nil {
		return nil, err
	}
	c := &Console{
		sources: sources, log: logger, page: page,
		listener: boundListener(listener, maxConnections),
		hub:      newHub(time.Now(), reg),
	}
	host, _, _ := net.SplitHostPort(cfg.listen()) // listen has read it
	c.server = &http.Server{
		Handler:           c.handler(host, reg),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(logger.Handler(), slog.LevelWarn),
	}
	return c, nil
}

func listen(address string) (net.Listener, error) {
	listener, err := net.Listen("tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("console.listen: port %s is taken by another program (%s): stop that, or choose another port", port, address)
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
func (c *Console) Notify(w telemetry.Warning) { c.hub.notify(&w) }

// Run serves until the context ends, then ends the event streams, gives other
// requests 5 s to finish, and returns nil.
func (c *Console) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- c.server.Serve(c.listener) }()
	select {
	case err := <-served:
		c.hub.close()
		return fmt.Errorf("serve the console: %w", err)
	case <-ctx.Done():
	}
	c.hub.close()
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer cancel()
	err := c.server.Shutdown(grace)
	if errors.Is(err, context.DeadlineExceeded) {
		err = c.server.Close() // who has not finished by now is cut off
	}
	<-served
	if err != nil {
		return fmt.Errorf("stop the console: %w", err)
	}
	return nil
}

// Close gives the address back without having served.
func (c *Console) Close() error { return c.listener.Close() }
