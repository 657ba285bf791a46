package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

const (
	maxChanges = 1000                 // of a device's history in one answer
	maxFor     = 366 * 24 * time.Hour // of a state
)

func (c *Console) deviceRoutes() []route {
	var routes []route
	if c.sources.Devices != nil {
		routes = append(routes, route{"/api/v1/devices", http.MethodGet, []string{"site", "owner"}, c.devices})
	}
	if c.sources.Device != nil {
		routes = append(routes, route{"/api/v1/devices/{id}", http.MethodGet, nil, c.device})
	}
	if c.sources.ChangeDevice != nil {
		routes = append(routes, route{"/api/v1/devices/{id}", http.MethodPatch, nil, c.changeDevice})
	}
	if c.sources.SetState != nil {
		routes = append(routes, route{"/api/v1/devices/{id}/state", http.MethodPost, nil, c.setState})
	}
	if c.sources.Admit != nil {
		routes = append(routes, route{"/api/v1/devices/{id}/admission", http.MethodPost, nil, c.admission})
	}
	if c.sources.DeviceChanges != nil {
		routes = append(routes, route{"/api/v1/devices/{id}/changes", http.MethodGet, []string{"limit"}, c.deviceChanges})
	}
	return routes
}

// devices serves GET /api/v1/devices.
func (c *Console) devices(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	return writeJSON(w, http.StatusOK, map[string]any{"devices": c.sources.Devices(query.Get("site"), query.Get("owner"))})
}

// device serves GET /api/v1/devices/{id}.
func (c *Console) device(w http.ResponseWriter, r *http.Request) error {
	device, ok := c.sources.Device(r.PathValue("id"))
	if !ok {
		return noDevice(r)
	}
	return writeJSON(w, http.StatusOK, device)
}

func noDevice(r *http.Request) error {
	return problemf(http.StatusNotFound, "id", "device %q is not registered and was not heard since the start", r.PathValue("id"))
}

// deviceChanges serves GET /api/v1/devices/{id}/changes.
func (c *Console) deviceChanges(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r, 100, maxChanges)
	if err != nil {
		return err
	}
	changes, err := c.sources.DeviceChanges(r.PathValue("id"), limit)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, map[string]any{"changes": changes})
}

func limitOf(r *http.Request, usual, most int) (int, error) {
	s := r.URL.Query().Get("limit")
	if s == "" {
		return usual, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > most {
		return 0, problemf(http.StatusBadRequest, "limit", "limit %q is not in 1..%d", s, most)
	}
	return n, nil
}

// setState serves POST /api/v1/devices/{id}/state.
func (c *Console) setState(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	var in struct {
		State string             `json:"state"`
		Value string             `json:"value"`
		For   telemetry.Duration `json:"for"`
		By    string             `json:"by"`
		Why   string             `json:"why"`
	}
	if err := decodeStrictly(body, &in); err != nil {
		return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of state, value, for, by, why: %v", err)
	}
	s := telemetry.StateChange{Device: r.PathValue("id"), Value: in.Value, For: in.For.Std(), At: time.Now().UTC()}
	switch in.State {
	case "measuring":
		s.State = telemetry.Good
	case "maintenance":
		s.State = telemetry.Maintenance
	case "calibrating":
		s.State = telemetry.Calibrating
	default:
		return problemf(http.StatusBadRequest, "state", "state %q is not one of measuring, maintenance, calibrating", in.State)
	}
	if s.For < 0 || s.For > maxFor {
		return problemf(http.StatusBadRequest, "for", "for is %s; expected a duration like 2h, at most 366d", in.For)
	}
	if s.For > 0 && s.State == telemetry.Good {
		return problemf(http.StatusBadRequest, "for", "for belongs to maintenance and calibrating")
	}
	if s.By, s.Why, err = whoAndWhy(actor(r, in.By), in.Why); err != nil {
		return err
	}
	if err := c.sources.SetState(r.Context(), s); err != nil {
		return deviceProblem(r, err)
	}
	c.desktop.changed()
	return c.device(w, r)
}

// changeDevice serves PATCH /api/v1/devices/{id}: {"by":..,"why":..,"name":..,
// "facts":{"alarm2_m":2.1,"zone":null}}.
func (c *Console) changeDevice(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	d := telemetry.DeviceChange{Device: r.PathValue("id"), Set: map[string]any{}, At: time.Now().UTC()}
	var in map[string]any
	if err := decodeStrictly(body, &in); err != nil {
		return problemf(http.StatusBadRequest, "", "the body is not an object of by, why and what is to be changed: %v", err)
	}
	by, _ := in["by"].(string)
	why, _ := in["why"].(string)
	if d.By, d.Why, err = whoAndWhy(actor(r, by), why); err != nil {
		return err
	}
	delete(in, "by")
	delete(in, "why")
	for name, value := range in {
		if name != "facts" {
			d.Set[name] = value
			continue
		}
		facts, ok := value.(map[string]any)
		if !ok {
			return problemf(http.StatusBadRequest, "facts", "facts is not an object of names and values")
		}
		for fact, value := range facts {
			d.Set["facts."+fact] = value
		}
	}
	if len(d.Set) == 0 {
		return problemf(http.StatusBadRequest, "", "nothing is to be changed: expected name, owner, interval, lat, lon or facts")
	}
	if err := c.sources.ChangeDevice(r.Context(), d); err != nil {
		return deviceProblem(r, err)
	}
	c.desktop.changed()
	return c.device(w, r)
}

// An Admission is what somebody decides about a device that came by itself.
type Admission struct {
	Device string
	Do     string // approve: it is registered; refuse: nothing of it is taken; reconsider: it waits again
	// Of approve: what people call it, default its id, and how often it reports.
	Name, Interval string
	By, Why        string
	At             time.Time
}

// admission serves POST /api/v1/devices/{id}/admission.
func (c *Console) admission(w http.ResponseWriter, r *http.Request) error {
	body, err := jsonBody(w, r)
	if err != nil {
		return err
	}
	var in struct {
		Do       string `json:"do"`
		Name     string `json:"name"`
		Interval string `json:"interval"`
		By       string `json:"by"`
		Why      string `json:"why"`
	}
	if err := decodeStrictly(body, &in); err != nil {
		return problemf(http.StatusBadRequest, fieldOf(err), "the body is not an object of do, name, interval, by, why: %v", err)
	}
	a := Admission{Device: r.PathValue("id"), Do: in.Do, Name: strings.TrimSpace(in.Name), Interval: strings.TrimSpace(in.Interval), At: time.Now().UTC()}
	switch {
	case !slices.Contains([]string{"approve", "refuse", "reconsider"}, in.Do):
		return problemf(http.StatusBadRequest, "do", "do %q is not one of approve, refuse, reconsider", in.Do)
	case in.Do != "approve" && a.Name+a.Interval != "":
		return problemf(http.StatusBadRequest, "name", "name and interval belong to approve only")
	case !telemetry.ValidName(a.Device):
		return noDevice(r)
	}
	if a.By, a.Why, err = whoAndWhy(actor(r, in.By), in.Why); err != nil {
		return err
	}
	answer, err := c.sources.Admit(r.Context(), a)
	if err != nil {
		return deviceProblem(r, err)
	}
	c.desktop.changed()
	return writeJSON(w, http.StatusOK, answer)
}

func whoAndWhy(by, why string) (string, string, error) {
	by, why = strings.TrimSpace(by), strings.TrimSpace(why)
	switch {
	case by == "" || utf8.RuneCountInString(by) > maxByRunes:
		return "", "", problemf(http.StatusBadRequest, "by", "by has %d letters; expected the name of who acts, 1 to %d letters", utf8.RuneCountInString(by), maxByRunes)
	case why == "" || utf8.RuneCountInString(why) > maxTextRunes:
		return "", "", problemf(http.StatusBadRequest, "why", "why has %d letters; expected the reason, 1 to %d letters", utf8.RuneCountInString(why), maxTextRunes)
	}
	return by, why, nil
}

// jsonBody reads the body of a change. A form of another page cannot send its
// type without asking first.
func jsonBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := jsonType(r); err != nil {
		return nil, err
	}
	return readBody(w, r)
}

func jsonType(r *http.Request) error {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return problemf(http.StatusUnsupportedMediaType, "", "Content-Type is %q; expected application/json", r.Header.Get("Content-Type"))
	}
	return nil
}

// decodeStrictly reads one JSON value without unknown members and with nothing
// after it.
func decodeStrictly(body []byte, into any) error {
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return fmt.Errorf("%w", err)
	}
	if _, trailing := decoder.Token(); trailing != io.EOF {
		return errors.New("something follows the object")
	}
	return nil
}

func deviceProblem(r *http.Request, err error) error {
	switch {
	case errors.Is(err, telemetry.ErrUnknownDevice):
		return noDevice(r)
	case errors.Is(err, ErrUnavailable), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return problemf(http.StatusServiceUnavailable, "", "%v", err)
	}
	field, _, ok := strings.Cut(err.Error(), ":")
	if !ok || strings.Contains(field, " ") {
		field = ""
	}
	return problemf(http.StatusBadRequest, field, "%v", err)
}
