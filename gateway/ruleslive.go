package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"haidang/gateway/spool"
	"haidang/rules"
)

// findLive finds the document that is live now: that of the gateway that runs on
// the data folder; else the last one that a gateway kept there; else that of the
// configuration, which a gateway would start with.
func (o *backtestOptions) findLive(ctx context.Context, cfg Configuration) error {
	document, running, err := askDocument(ctx, cfg.Data)
	if err != nil {
		return err
	}
	if running && document == nil {
		o.against = "those of the configuration (the gateway that runs on " + cfg.Data + " has none yet)"
		return nil
	}
	if document != nil {
		o.live, o.against = *document, "in the gateway that runs on "+cfg.Data
		return nil
	}
	kept, at, err := keptDocument(ctx, cfg)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		o.against = fmt.Sprintf("those of the configuration (what a gateway left in %s cannot be read: %v)", cfg.Data, err)
	case kept != nil:
		o.live, o.against = *kept, fmt.Sprintf("those that a gateway left in %s at %s", cfg.Data, at.In(vietnam).Format("2006-01-02 15:04"))
	default:
		o.against = "those of the configuration (no gateway has run on " + cfg.Data + ")"
	}
	return nil
}

// askDocument asks the gateway that runs on the data folder, if one does.
func askDocument(ctx context.Context, data string) (document *rules.Document, running bool, err error) {
	conn, err := dialSocket(ctx, data)
	if err != nil {
		return nil, false, nil // what is left in the folder is looked at then
	}
	_ = conn.Close() // it was only a question
	var answer struct{ Document *rules.Document }
	gateway := runningGateway{data: data}
	if err := gateway.ask(ctx, http.MethodGet, "/api/v1/rules/document", nil, nil, &answer); err != nil {
		return nil, true, fmt.Errorf("ask the gateway that runs on %s for its rules: %w", data, err)
	}
	return answer.Document, true, nil
}

// keptDocument reads the document of the rules' checkpoint in a data folder on
// which no gateway runs; nil when there is none.
func keptDocument(ctx context.Context, cfg Configuration) (_ *rules.Document, at time.Time, err error) {
	dir := filepath.Join(cfg.Data, "spool")
	if cfg.Spool.URL != "" {
		return nil, at, nil // the log of others: opening it may change how it is kept
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, at, nil
	}
	s, err := spool.Open(ctx, spool.Options{
		Dir: dir, Config: cfg.Spool, // without followers: no position is forgotten
		Registerer: prometheus.NewRegistry(), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, at, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	blob, err := s.LoadCheckpoint(ctx, followRules)
	if err != nil || len(blob) < checkpointHead {
		return nil, at, err
	}
	document, at, ok, err := rules.CheckpointDocument(blob[checkpointHead:])
	if err != nil || !ok {
		return nil, at, err
	}
	return &document, at, nil
}
