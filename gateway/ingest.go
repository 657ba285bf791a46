package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"haidang/broker"
	"haidang/gateway/telemetry"
)

// Bounds of one write over HTTP.
const (
	maxWriteBytes = 8 << 20
	writePatience = 30 * time.Second // until the readings are on disk
	maxWrites     = 4                // at a time; others wait
	maxBadLines   = 100              // of a write that are kept as dead letters; others are counted in the answer
)

// An ingestHandler takes what clients write to InfluxDB's own endpoints
// (/write of 1.x, /api/v2/write of 2.x) into the log, as any other source: it
// is checked, evaluated by rules and stored. 204 means that it is on disk.
// Measurements that the gateway writes itself, warning and haidang_*, are refused:
// a warning is what a rule raises, and who writes points of that name into the same
// database, as another gateway would, is to write into a database of its own.
type ingestHandler struct {
	intake  func() telemetry.Intake
	started func() bool // the log has the gateway's start and its rules
	slots   chan struct{}
}

// ServeHTTP implements http.Handler.
func (h ingestHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		writeError(w, http.StatusMethodNotAllowed, "method_not_allowed", "want POST with line protocol")
		return
	}
	if !h.started() {
		w.Header().Set("Retry-After", "1")
		writeError(w, http.StatusServiceUnavailable, "unavailable", "the gateway is starting")
		return
	}
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-r.Context().Done():
		return
	}
	unit, err := precision(r.URL.Query().Get("precision"))
	if err != nil {
		writeError(w, http.StatusBadRequest, "invalid", err.Error())
		return
	}
	body, status, err := readBody(w, r)
	if err != nil {
		writeError(w, status, "invalid", err.Error())
		return
	}
	readings, bad, refused := parseLines(body, unit, telemetry.AccountOf(r.Context()))
	if len(readings) > 0 {
		done := make(chan error, 1)
		h.intake().Accept("influx.write", readings, func(err error) { done <- err })
		select {
		case err = <-done:
		case <-r.Context().Done():
			err = r.Context().Err()
		case <-time.After(writePatience):
			err = errors.New("the log does not answer")
		}
		if err != nil {
			w.Header().Set("Retry-After", "5")
			writeError(w, http.StatusServiceUnavailable, "unavailable", err.Error())
			return
		}
	}
	if len(bad) == 0 {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	for _, letter := range bad {
		h.intake().SetAside(letter, nil)
	}
	writeError(w, http.StatusBadRequest, "invalid", fmt.Sprintf("partial write: %d lines accepted, %d refused; first: %s: %s", len(readings), refused, bad[0].Place, bad[0].Detail))
}

// precision returns the unit of timestamps; 0: seen from their size.
func precision(name string) (time.Duration, error) {
	switch name {
	case "", "n", "ns":
		return 0, nil
	case "u", "us", "µ":
		return time.Microsecond, nil
	case "ms":
		return time.Millisecond, nil
	case "s":
		return time.Second, nil
	case "m":
		return time.Minute, nil
	case "h":
		return time.Hour, nil
	}
	return 0, fmt.Errorf("precision %q is not one of ns, us, ms, s, m, h", name)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, int, error) {
	var in io.Reader = http.MaxBytesReader(w, r.Body, maxWriteBytes)
	if r.Header.Get("Content-Encoding") == "gzip" {
		unpacked, err := gzip.NewReader(in)
		if err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("the body is not gzip: %w", err)
		}
		in = io.LimitReader(unpacked, maxWriteBytes+1)
	}
	body, err := io.ReadAll(in)
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) || len(body) > maxWriteBytes {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", maxWriteBytes)
	}
	if err != nil {
		return nil, http.StatusBadRequest, fmt.Errorf("read the body: %w", err)
	}
	return body, 0, nil
}

// parseLines reads each line for itself: one that is no line protocol costs no
// other.
func parseLines(body []byte, unit time.Duration, account *telemetry.Account) (readings []telemetry.Reading, bad []telemetry.DeadLetter, refused int) {
	n := 0
	for line := range bytes.Lines(body) {
		n++
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		reading, err := broker.ParseLine(line, unit)
		reason := "bad_line"
		if err == nil && account != nil && !account.Speaks(reading.Device) {
			reason, err = "not_own_device", fmt.Errorf("account %q does not speak for device %q", account.Name, reading.Device)
		}
		if err != nil {
			if refused++; refused > maxBadLines {
				continue
			}
			bad = append(bad, telemetry.DeadLetter{Source: "influx.write", Place: fmt.Sprintf("line %d", n), Reason: reason, Detail: err.Error(), Bytes: line})
			continue
		}
		readings = append(readings, reading)
	}
	return readings, bad, refused
}

// writeError answers in the shape that clients of 1.x (error) and of 2.x (code,
// message) read.
func writeError(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message, "code": code, "message": message})
}
