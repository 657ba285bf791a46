package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"haidang/gateway/account"
	"haidang/gateway/certificate"
	"haidang/gateway/influx"
	"haidang/gateway/telemetry"
)

// serveWrites takes what clients write as to InfluxDB, on an address of its own:
// the InfluxDB of a machine with roles is elsewhere, and has no door into the log.
func (g *instance) serveWrites(ctx context.Context, address string) error {
	if address == "" {
		return nil
	}
	t := g.cfg.Influx.TLS
	encryption, err := g.encryption("influx", certificate.Files{Cert: t.Cert, Key: t.Key})
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("influx.listen: %w", err)
	}
	if encryption != nil {
		listener = tls.NewListener(listener, encryption)
	}
	server := &http.Server{
		Handler: writeDoor{g.ingest(), g.accounts.Door(true)}, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: time.Minute, WriteTimeout: time.Minute,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10, ErrorLog: slog.NewLogLogger(g.logger.Handler(), slog.LevelDebug),
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), frontGrace)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
		err = <-ended
	}
	if err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve /write on %s: %w", address, err)
	}
	return nil
}

// A writeDoor lets writes through of whose account may write.
type writeDoor struct {
	next     http.Handler
	accounts account.Door
}

// ServeHTTP implements http.Handler.
func (d writeDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ping", "/health":
		w.WriteHeader(http.StatusNoContent)
		return
	case "/write":
		if r.URL.Query().Get("db") != influx.Database {
			writeError(w, http.StatusNotFound, "not found", fmt.Sprintf("database not found: %q; there is %s", r.URL.Query().Get("db"), influx.Database))
			return
		}
	case "/api/v2/write":
	default:
		writeError(w, http.StatusNotFound, "not found", "here readings are taken in at /write and /api/v2/write; ask InfluxDB itself for what is stored")
		return
	}
	a, err := d.accounts.Request(r)
	if err == nil && !a.May(telemetry.Write, "") {
		err = telemetry.Forbidden("account " + strconv.Quote(a.Name) + " (" + string(a.Role) + ") has no right to write here")
	}
	if err != nil {
		denial, ok := errors.AsType[*telemetry.Denial](err)
		if !ok {
			denial = &telemetry.Denial{Reason: telemetry.DeniedBusy, Detail: err.Error()}
		}
		if denial.Status() == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="InfluxDB"`)
		}
		if denial.After > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(denial.After.Seconds())+1))
		}
		writeError(w, denial.Status(), "unauthorized", denial.Detail)
		return
	}
	d.next.ServeHTTP(w, r.WithContext(telemetry.WithAccount(r.Context(), a)))
}
