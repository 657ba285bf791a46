package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

const (
	maxBodyBytes   = 64 << 10
	maxByRunes     = 128
	maxTextRunes   = 4096
	maxDeadLetters = 1000
	readyTime      = 2 * time.Second
)

// warnings serves GET /api/v1/warnings.
func (c *Console) warnings(w http.ResponseWriter, r *http.Request) error {
	keep, all, err := filter(r.URL.Query().Get)
	if err != nil {
		return err
	}
	kept := []telemetry.Warning{}
	for _, warning := range c.sources.Warnings(all) {
		if keep(&warning) {
			kept = append(kept, warning)
		}
	}
	return writeJSON(w, http.StatusOK, map[string]any{"warnings": kept})
}

// filter reads the query of the list of warnings; all says whether cleared ones
// are needed.
func filter(query func(string) string) (keep func(*telemetry.Warning) bool, all bool, err error) {
	state := telemetry.State(query("state"))
	switch state {
	case "all", telemetry.Cleared:
		all = true
	case "", telemetry.Pending, telemetry.Active, telemetry.Acknowledged, telemetry.Shelved, telemetry.Returned, telemetry.OutOfService:
	default:
		return nil, false, problemf(http.StatusBadRequest, "state", "state %q is not one of all, pending, active, acknowledged, shelved, returned, out-of-service, cleared", state)
	}
	least := telemetry.NoSeverity
	if s := query("severity"); s != "" {
		if err := least.UnmarshalText([]byte(s)); err != nil {
			return nil, false, problemf(http.StatusBadRequest, "severity", "%v", err)
		}
	}
	device, rule := query("device"), query("rule")
	return func(w *telemetry.Warning) bool {
		return (state == "" || state == "all" || w.State == state) && w.Severity >= least &&
			(device == "" || w.Device == device) && (rule == "" || w.Rule == rule)
	}, all, nil
}

// warning serves GET /api/v1/warnings/{id}.
func (c *Console) warning(w http.ResponseWriter, r *http.Request) error {
	warning, ok := c.sources.Warning(r.PathValue("id"))
	if !ok {
		return problemf(http.StatusNotFound, "id", "there is no warning %q", r.PathValue("id"))
	}
	return writeJSON(w, http.StatusOK, warning)
}

// health serves GET /api/v1/health.
func (c *Console) health(w http.ResponseWriter, r *http.Request) error {
	health, err := c.sources.Health(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, health)
}

// history serves GET /api/v1/warnings/{id}/history.
func (c *Console) history(w http.ResponseWriter, r *http.Request) error {
	id := r.PathValue("id")
	transitions, err := c.sources.History(r.Context(), id)
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "the history of %q could not be read in time: %v", id, err)
	case err != nil:
		return err
	case len(transitions) == 0:
		return problemf(http.StatusNotFound, "id", "there is no warning %q", id)
	}
	return writeJSON(w, http.StatusOK, map[string]any{"transitions": transitions})
}

// act serves POST /api/v1/warnings/{id}/ and the deed.
func (c *Console) act(deed telemetry.Deed) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		// A form of another page cannot send this type without asking first.
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
			return problemf(http.StatusUnsupportedMediaType, "", "Content-Type is %q; expected application/json", r.Header.Get("Content-Type"))
		}
		body, err := readBody(w, r)
		if err != nil {
			return err
		}
		act, err := decodeAct(body, deed, actor(r, ""), time.Now())
		if err != nil {
			return err
		}
		act.ID = r.PathValue("id")
		warning, err := c.sources.Act(r.Context(), act)
		if err != nil {
			return c.actProblem(act, err)
		}
		return writeJSON(w, http.StatusOK, warning)
	}
}

// reload serves POST /api/v1/rules/reload.
func (c *Console) reload(w http.ResponseWriter, r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "", "Content-Type is %q; expected application/json", r.Header.Get("Content-Type"))
	}
	if err := c.sources.Reload(r.Context()); err != nil {
		return problemf(http.StatusUnprocessableEntity, "", "nothing was changed: %v", err)
	}
	return writeJSON(w, http.StatusOK, map[string]bool{"reloaded": true})
}

func (c *Console) actProblem(act telemetry.Act, err error) error {
	switch {
	case errors.Is(err, telemetry.ErrUnknown):
		return problemf(http.StatusNotFound, "id", "%v", err)
	case errors.Is(err, telemetry.ErrConflict):
		p := problemf(http.StatusConflict, "n", "%v", err)
		if now, ok := c.sources.Warning(act.ID); ok {
			p.N = now.N
		}
		return p
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "%v", err)
	}
	field, _, ok := strings.Cut(err.Error(), ":")
	if !ok || strings.Contains(field, " ") {
		field = ""
	}
	return problemf(http.StatusBadRequest, field, "%v", err)
}

func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	return readBodyUpTo(w, r, maxBodyBytes)
}

func readBodyUpTo(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, problemf(http.StatusRequestEntityTooLarge, "", "the body is over %d bytes", most)
	}
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "", "the body breaks off: %v", err)
	}
	return body, nil
}

// decodeAct reads the body of an operator's act strictly: one JSON object, no
// unknown members, nothing after it. author is the account that asks, "" when
// there are none: then the body says who.
func decodeAct(body []byte, deed telemetry.Deed, author string, now time.Time) (telemetry.Act, error) {
	var in struct {
		N     int        `json:"n"`
		By    string     `json:"by"`
		Text  string     `json:"text"`
		To    string     `json:"to"`
		Until *time.Time `json:"until"`
	}
	err := decodeStrictly(body, &in)
	if author != "" {
		in.By = author
	}
	bad := func(field, format string, args ...any) (telemetry.Act, error) {
		return telemetry.Act{}, problemf(http.StatusBadRequest, field, format, args...)
	}
	if err != nil {
		return bad(fieldOf(err), "the body is not an object of n, by, text, to, until: %v", err)
	}
	act := telemetry.Act{N: in.N, Do: deed, By: strings.TrimSpace(in.By), At: now, Text: strings.TrimSpace(in.Text), To: strings.TrimSpace(in.To), Until: in.Until}
	switch {
	case act.N < 1:
		return bad("n", "n is %d; expected the number of the transition that was seen, from 1", act.N)
	case act.By == "" || utf8.RuneCountInString(act.By) > maxByRunes:
		return bad("by", "by has %d letters; expected the name of who acts, 1 to %d letters", utf8.RuneCountInString(act.By), maxByRunes)
	case utf8.RuneCountInString(act.Text) > maxTextRunes:
		return bad("text", "text has %d letters; expected at most %d", utf8.RuneCountInString(act.Text), maxTextRunes)
	case deed == telemetry.Comment && act.Text == "":
		return bad("text", "text is missing; expected the comment")
	case deed == telemetry.Assign && (act.To == "" || utf8.RuneCountInString(act.To) > maxByRunes):
		return bad("to", "to has %d letters; expected the person or agency in charge from now on, 1 to %d letters", utf8.RuneCountInString(act.To), maxByRunes)
	case deed != telemetry.Assign && act.To != "":
		return bad("to", "to belongs to assign only")
	case deed == telemetry.Shelve && (act.Until == nil || !act.Until.After(now)):
		return bad("until", "until is missing or past; expected when shelving ends, as in %s", now.Add(time.Hour).Format(time.RFC3339))
	case deed != telemetry.Shelve && act.Until != nil:
		return bad("until", "until belongs to shelve only")
	}
	return act, nil
}

// fieldOf returns the member of a JSON body that an error is about, or "".
func fieldOf(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return wrong.Field
	}
	if _, rest, ok := strings.Cut(err.Error(), `unknown field "`); ok {
		return strings.TrimSuffix(rest, `"`)
	}
	if _, ok := errors.AsType[*time.ParseError](err); ok {
		return "until"
	}
	return ""
}

// list serves what a source returns under its name.
func list(name string, source func() any) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, _ *http.Request) error {
		return writeJSON(w, http.StatusOK, map[string]any{name: source()})
	}
}

// healthz serves GET /healthz: the program lives.
func (c *Console) healthz(w http.ResponseWriter, _ *http.Request) error {
	writeBody(w, http.StatusOK, "text/plain; charset=utf-8", []byte("ok\n"))
	return nil
}

// readyz serves GET /readyz.
func (c *Console) readyz(w http.ResponseWriter, r *http.Request) error {
	missing := c.notReady(r.Context())
	if len(missing) > 0 {
		return writeJSON(w, http.StatusServiceUnavailable, map[string]any{"ready": false, "not_ready": missing})
	}
	return writeJSON(w, http.StatusOK, map[string]any{"ready": true})
}

// notReady runs the checks together and returns the reasons of those that fail.
func (c *Console) notReady(ctx context.Context) map[string]string {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	var (
		wait    sync.WaitGroup
		mu      sync.Mutex
		missing = map[string]string{}
	)
	for name, check := range c.sources.Ready {
		wait.Go(func() {
			err := check(ctx)
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			missing[name] = err.Error()
		})
	}
	wait.Wait()
	return missing
}
