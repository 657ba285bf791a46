// Package registry keeps what people change of devices while the gateway runs:
// periods of maintenance and calibration, and facts, on top of devices.yaml.
//
// # What lies on the disk
//
//	<data>/devices.json           what is in force, replaced as a whole and synced
//	<data>/devices-audit.jsonl    every change: who, when, why; one JSON object a line
//	<data>/devices-audit.jsonl.1  what was before, and .2; each of at most 8 MiB
//
// devices.json is
//
//	{"format":1,"n":17,"last":{...},"devices":{"kim-long":{
//	  "set":{"facts.alarm2_m":2.1,"owner":"Đài KTTV"},
//	  "periods":[{"state":"maintenance","since":"...","until":"...","by":"Lan","why":"..."}]}}}
//
// where n counts the changes and last is the newest of them as the audit has it:
// it is written there next, and after a crash in between by Open. A format that
// is newer than ours is refused; a file that cannot be read is moved aside to
// devices.json.damaged and told, and the gateway begins without.
//
// A change is in force when it is on disk. What ended is kept for two days, for
// readings that come late.
package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"haidang/gateway/telemetry"
)

const (
	fileName  = "devices.json"
	auditName = "devices-audit.jsonl"
	format    = 1

	// keepEnded is how long a period is known after its end.
	keepEnded = 48 * time.Hour

	// MaxDevices bounds the devices that have changes, MaxPeriods the periods of
	// one, MaxSet the values of one that are changed.
	MaxDevices = 10_000
	MaxPeriods = 64
	MaxSet     = 256
)

// An Audit is one change as it was made.
type Audit struct {
	N      int       `json:"n"` // counts the changes of this gateway, from 1
	At     time.Time `json:"at"`
	Device string    `json:"device"`
	By     string    `json:"by"`
	Why    string    `json:"why"`

	// A change of state.
	State string     `json:"state,omitempty"` // measuring, maintenance or calibrating; refused or admitted
	Value string     `json:"value,omitempty"`
	Until *time.Time `json:"until,omitempty"`

	// A change of what is known of the device; null puts back the configuration's.
	Set map[string]any `json:"set,omitempty"`
}

// A document is devices.json.
type document struct {
	Format  int               `json:"format"`
	N       int               `json:"n"`
	Last    *Audit            `json:"last,omitempty"`
	Devices map[string]change `json:"devices"`
}

// A change is what is changed of one device.
type change struct {
	Set     map[string]any     `json:"set,omitempty"`
	Periods []telemetry.Period `json:"periods,omitempty"`

	// New says that the device is not in the configuration: it was heard, and
	// somebody registered it by setting something.
	New bool `json:"new,omitempty"`

	// Refused is set of a device that is not registered and is not to be.
	Refused *Refusal `json:"refused,omitempty"`
}

// A Refusal says who keeps a device out that nobody has registered, and why.
type Refusal struct {
	At  time.Time `json:"at"`
	By  string    `json:"by"`
	Why string    `json:"why"`
}

// A Registry is safe for concurrent use.
type Registry struct {
	dir   string
	audit journal

	mu  sync.Mutex
	doc document
}

// Open reads what was changed in earlier runs; dir is the data folder.
func Open(dir string, logger *slog.Logger) (*Registry, error) {
	r := &Registry{dir: dir, audit: journal{path: filepath.Join(dir, auditName)}}
	doc, err := read(filepath.Join(dir, fileName))
	if damaged, ok := errors.AsType[*damagedError](err); ok {
		aside := damaged.path + ".damaged"
		if err := os.Rename(damaged.path, aside); err != nil {
			return nil, fmt.Errorf("set a damaged file aside: %w", err)
		}
		logger.Error("what was changed of devices at run time cannot be read and is not in force: maintenance, calibration, facts", "file", aside, "error", damaged.err, "history", r.audit.path)
	} else if err != nil {
		return nil, err
	}
	r.doc = doc
	if err := r.audit.catchUp(doc.Last); err != nil {
		return nil, err
	}
	return r, nil
}

// Look reads what was changed without a hand in it: another Registry may be at work in
// the folder. What it returns is only for Apply, Changes and Periods.
func Look(dir string) (*Registry, error) {
	doc, err := read(filepath.Join(dir, fileName))
	if err != nil {
		return nil, err
	}
	return &Registry{dir: dir, doc: doc}, nil
}

type damagedError struct {
	path string
	err  error
}

func (e *damagedError) Error() string { return fmt.Sprintf("%s: %v", e.path, e.err) }
func (e *damagedError) Unwrap() error { return e.err }

func read(path string) (document, error) {
	empty := document{Format: format, Devices: map[string]change{}}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("read what was changed of devices: %w", err)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		return empty, &damagedError{path, err}
	}
	if doc.Format > format {
		return empty, fmt.Errorf("%s has format %d; this version reads up to %d: run the newer one", path, doc.Format, format)
	}
	if doc.Format < 1 {
		return empty, &damagedError{path, errors.New("it has no format")}
	}
	if doc.Devices == nil {
		doc.Devices = map[string]change{}
	}
	return doc, nil
}

// Periods returns the periods that are known, by device.
func (r *Registry) Periods() map[string][]telemetry.Period {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]telemetry.Period{}
	for id, c := range r.doc.Devices {
		if len(c.Periods) > 0 {
			out[id] = slices.Clone(c.Periods)
		}
	}
	return out
}

// Changed returns what is set of a device at run time.
func (r *Registry) Changed(device string) map[string]any {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.doc.Devices[device].Set)
}

// SetState puts a change of state in force. The error says what cannot be.
func (r *Registry) SetState(s telemetry.StateChange) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.doc.Devices[s.Device]
	after, until, err := before.state(s)
	if err != nil {
		return err
	}
	name := s.State.String()
	if s.State == telemetry.Good {
		name = "measuring"
	}
	return r.commit(s.Device, after, Audit{At: s.At, Device: s.Device, By: s.By, Why: s.Why, State: name, Value: s.Value, Until: until})
}

// state returns the change with another state.
func (c change) state(s telemetry.StateChange) (change, *time.Time, error) {
	var kept []telemetry.Period
	ended := false
	for _, p := range c.Periods {
		open := p.Until == nil || p.Until.After(s.At)
		if open && (p.Value == s.Value || s.State == telemetry.Good && s.Value == "") {
			at := s.At
			p.Until, ended = &at, true
		}
		if p.Until == nil || s.At.Sub(*p.Until) < keepEnded {
			kept = append(kept, p)
		}
	}
	var until *time.Time
	switch s.State {
	case telemetry.Good:
		if !ended {
			return c, nil, fmt.Errorf("%s is measuring already", subject(s.Device, s.Value))
		}
	case telemetry.Maintenance, telemetry.Calibrating:
		if s.For > 0 {
			end := s.At.Add(s.For)
			until = &end
		}
		kept = append(kept, telemetry.Period{Value: s.Value, State: s.State, Since: s.At, Until: until, By: s.By, Why: s.Why})
	default:
		return c, nil, fmt.Errorf("state: %q is not one of measuring, maintenance, calibrating", s.State)
	}
	if len(kept) > MaxPeriods {
		kept = kept[len(kept)-MaxPeriods:] // the oldest have ended, or are covered by others
	}
	c.Periods = kept
	return c, until, nil
}

func subject(device, value string) string {
	if value == "" {
		return device
	}
	return value + " of " + device
}

// Refuse keeps a device that nobody has registered out, or (out false) lets it in
// again. The caller has looked that it is not registered.
func (r *Registry) Refuse(device string, out bool, by, why string, at time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.doc.Devices[device]
	if out == (c.Refused != nil) {
		return fmt.Errorf("device %q is as it was asked for already: refused %v", device, out)
	}
	state := "admitted"
	c.Refused = nil
	if out {
		state = "refused"
		c.Refused = &Refusal{At: at.UTC(), By: by, Why: why}
	}
	return r.commit(device, c, Audit{At: at, Device: device, By: by, Why: why, State: state})
}

// Refused returns the devices that are kept out.
func (r *Registry) Refused() map[string]Refusal {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]Refusal{}
	for id, c := range r.doc.Devices {
		if c.Refused != nil {
			out[id] = *c.Refused
		}
	}
	return out
}

// Prepare returns the devices of the configuration as they are with a change,
// and a function that puts the change in force. isNew says that the device is
// not in the configuration.
func (r *Registry) Prepare(d telemetry.DeviceChange, isNew bool, configured []telemetry.Device) (changed []telemetry.Device, commit func() error, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.doc.Devices[d.Device]
	c.Set = maps.Clone(c.Set)
	if c.Set == nil {
		c.Set = map[string]any{}
	}
	c.New = c.New || isNew
	c.Refused = nil // it is registered by this
	for _, name := range slices.Sorted(maps.Keys(d.Set)) {
		if d.Set[name] == nil {
			delete(c.Set, name)
			continue
		}
		if err := set(&telemetry.Device{}, name, d.Set[name]); err != nil {
			return nil, nil, err
		}
		c.Set[name] = d.Set[name]
	}
	if len(c.Set) > MaxSet {
		return nil, nil, fmt.Errorf("facts: %d values of %s are changed; at most %d", len(c.Set), d.Device, MaxSet)
	}
	if len(c.Set) == 0 {
		c.New = false // as if it had never been registered
	}
	with := maps.Clone(r.doc.Devices)
	with[d.Device] = c
	n := r.doc.N
	return merge(configured, with), func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.doc.N != n {
			return errors.New("somebody else changed a device at the same time: try again")
		}
		return r.commit(d.Device, c, Audit{At: d.At, Device: d.Device, By: d.By, Why: d.Why, Set: d.Set})
	}, nil
}

// Changes reports whether something was changed of what is known of devices.
func (r *Registry) Changes() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.doc.Devices {
		if len(c.Set) > 0 || c.New {
			return true
		}
	}
	return false
}

// Apply returns the devices of the configuration with what was changed at run
// time.
func (r *Registry) Apply(configured []telemetry.Device) []telemetry.Device {
	r.mu.Lock()
	defer r.mu.Unlock()
	return merge(configured, r.doc.Devices)
}

// commit writes the document with a device's change and then the audit. The lock
// is held.
func (r *Registry) commit(device string, c change, a Audit) error {
	doc := r.doc
	doc.Devices = maps.Clone(r.doc.Devices)
	doc.Devices[device] = c
	if len(c.Set)+len(c.Periods) == 0 && c.Refused == nil {
		delete(doc.Devices, device)
	}
	if len(doc.Devices) > MaxDevices {
		return fmt.Errorf("more than %d devices are changed: put changes that last into devices.yaml", MaxDevices)
	}
	doc.N++
	a.N, a.At = doc.N, a.At.UTC()
	doc.Last = &a
	text, err := json.Marshal(doc)
	if err != nil {
		return fmt.Errorf("keep the change of %s: %w", device, err)
	}
	if err := WriteFile(filepath.Join(r.dir, fileName), append(text, '\n')); err != nil {
		return fmt.Errorf("keep the change of %s: %w", device, err)
	}
	if err := r.audit.append(a); err != nil {
		return errors.Join(fmt.Errorf("the change of %s was not made: %w", device, err), r.revert())
	}
	r.doc = doc
	return nil
}

// revert puts the document back as it was.
func (r *Registry) revert() error {
	text, err := json.Marshal(r.doc)
	if err == nil {
		err = WriteFile(filepath.Join(r.dir, fileName), append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("put back what was in force: %w", err)
	}
	return nil
}

// History returns changes, the newest first, at most limit: of one device, or of
// all when device is "".
func (r *Registry) History(device string, limit int) ([]Audit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.audit.newest(device, limit)
}

// WriteFile puts text in the place of a file, all of it or nothing, on disk when
// it returns.
func WriteFile(path string, text []byte) (err error) {
	temporary := path + ".new"
	file, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
