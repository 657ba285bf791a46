package ioc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sort"
	"sync"
	"time"

	"haidang/gateway/ioc/cap"
	"haidang/gateway/telemetry"
)

// Bounds of a folder of CAP messages.
const (
	DefaultKeepFiles = 1000
	minKeepFiles     = 10
	maxKeepFiles     = 100_000

	capEvery = time.Minute // between looks for messages that are due again
)

// CAPConfig is where CAP messages go: posted to an address, written into a
// folder, or both.
type CAPConfig struct {
	URL     string             `yaml:"url"`     // http or https
	Timeout telemetry.Duration `yaml:"timeout"` // of one attempt, 1s to 1m; default DefaultTimeout
	Access  `yaml:",inline"`

	Folder string `yaml:"folder"` // one file for each message, never changed once it is there
	Keep   int    `yaml:"keep"`   // files in the folder, 10 to 100000; the oldest go; default DefaultKeepFiles

	// All sends warnings that the public is not told of, too: see events under
	// cap.
	All bool `yaml:"all"`
}

// Validate reports what is wrong.
func (c CAPConfig) Validate() []telemetry.Fault {
	var faults []telemetry.Fault
	switch {
	case c.URL != "":
		faults = validHTTP(c.URL, c.Access, c.Timeout)
	case c.Folder == "":
		faults = append(faults, telemetry.Faultf("", "expected url: https://host/path, folder: /path, or both"))
	case c.Access != Access{} || c.Timeout != 0:
		faults = append(faults, telemetry.Faultf("url", "token, ca, cert, key and timeout are for an url, and there is none"))
	}
	if c.Folder != "" {
		if at, err := os.Stat(c.Folder); err != nil || !at.IsDir() {
			faults = append(faults, telemetry.Faultf("folder", "%q is not a folder that is there", c.Folder))
		}
	}
	if c.Keep != 0 && (c.Keep < minKeepFiles || c.Keep > maxKeepFiles) {
		faults = append(faults, telemetry.Faultf("keep", "%d files are not in %d..%d", c.Keep, minKeepFiles, maxKeepFiles))
	}
	return faults
}

// Bulletins is where CAP messages come from: the chronicle of the warnings log
// and what writes its messages.
type Bulletins struct {
	Chronicle *cap.Chronicle
	Composer  *cap.Composer
	Now       func() time.Time
}

// CAP hands CAP messages to a recipient. It is safe for concurrent use.
type CAP struct {
	*endpoint // nil: none is posted to
	folder    string
	keep      int
	all       bool
	from      Bulletins

	mu   sync.Mutex
	said map[string]string // the newest refresh of each warning that was delivered
}

// NewCAP makes a CAP recipient of a valid configuration.
func NewCAP(c CAPConfig, from Bulletins, version string) *CAP {
	r := &CAP{folder: c.Folder, keep: c.Keep, all: c.All, from: from, said: map[string]string{}}
	if r.keep == 0 {
		r.keep = DefaultKeepFiles
	}
	if c.URL != "" {
		r.endpoint = newEndpoint(c.URL, c.Access, c.Timeout.Std(), version)
	}
	return r
}

// Picks reports whether the transition is a message, and one for this recipient.
func (r *CAP) Picks(w telemetry.Warning) bool {
	_, is := r.from.Chronicle.Of(w)
	return is && r.reads(&w)
}

// reads reports whether the recipient takes such warnings.
func (r *CAP) reads(w *telemetry.Warning) bool { return r.all || r.from.Composer.Public(w) }

// Offer returns, of the warnings that last, the transitions that are their
// newest messages.
func (r *CAP) Offer(lasting []telemetry.Warning) []telemetry.Warning { return r.from.newest(lasting) }

func (f *Bulletins) newest(lasting []telemetry.Warning) []telemetry.Warning {
	now := f.Now()
	var out []telemetry.Warning
	for _, w := range lasting {
		if b, is := f.Chronicle.Last(w.ID, now); is {
			b.Warning.To = w.To // of today
			out = append(out, b.Warning)
		}
	}
	return out
}

// Deliver makes one attempt to hand over the message of a transition.
func (r *CAP) Deliver(ctx context.Context, w telemetry.Warning) error {
	b, is := r.from.Chronicle.Of(w)
	if !is && r.reads(&w) {
		// Somebody is to be told although nothing has changed: what holds now.
		b, is = r.from.Chronicle.Last(w.ID, r.from.Now())
	}
	if !is {
		return nil // a message of before a restart that the chronicle has forgotten
	}
	return r.deliver(ctx, &b)
}

func (r *CAP) deliver(ctx context.Context, b *cap.Bulletin) error {
	text, err := r.from.Composer.Message(b).Encode()
	if err != nil {
		return &Failure{Reason: reasonEncode, OneWarning: true, Final: true, Detail: err.Error()}
	}
	if r.folder != "" {
		if err := r.write(b.File(), text); err != nil {
			return &Failure{Reason: reasonFile, Detail: err.Error()}
		}
	}
	if r.endpoint == nil {
		return nil
	}
	header := http.Header{}
	header.Set("Content-Type", cap.MediaType+"; charset=utf-8")
	header.Set("Idempotency-Key", b.Identifier)
	return r.post(ctx, header, text)
}

// write puts a whole file into the folder at once: whoever looks there sees it
// complete or not at all.
func (r *CAP) write(name string, text []byte) error {
	path := filepath.Join(r.folder, name)
	if _, err := os.Stat(path); err == nil {
		return nil // of an attempt before
	}
	f, err := os.CreateTemp(r.folder, ".cap-*")
	if err != nil {
		return fmt.Errorf("write CAP message %s: %w", name, err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write CAP message %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return r.prune()
}

// prune removes the oldest messages beyond those that are kept; other files of
// the folder are left alone.
func (r *CAP) prune() error {
	entries, err := os.ReadDir(r.folder)
	if err != nil {
		return fmt.Errorf("read the folder of CAP messages: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && cap.IsFile(e.Name()) {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	for len(names) > r.keep {
		if err := os.Remove(filepath.Join(r.folder, names[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove an old CAP message: %w", err)
		}
		names = names[1:]
	}
	return nil
}

// Every is how often the recipient looks for messages that are due again.
func (r *CAP) Every() time.Duration { return capEvery }

// Keep delivers the messages that are due again because they expire while
// their warnings last. After a restart the newest of each is delivered once
// more.
func (r *CAP) Keep(ctx context.Context, lasting func() []telemetry.Warning) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.from.Now()
	mine := map[string]bool{}
	for _, w := range lasting() {
		mine[w.ID] = r.reads(&w)
	}
	for id := range r.said {
		if !mine[id] {
			delete(r.said, id)
		}
	}
	var refused error
	for _, b := range r.from.Chronicle.Newest(now, now) {
		id := b.Warning.ID
		if b.Refresh == 0 || !mine[id] || r.said[id] == b.Identifier {
			continue
		}
		err := r.deliver(ctx, &b)
		switch {
		case err == nil:
			r.said[id] = b.Identifier
		case failureIn(err).OneWarning:
			refused = err // the others would expire for the sake of this one
		default:
			return err
		}
	}
	return refused
}
