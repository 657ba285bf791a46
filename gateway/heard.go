package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"haidang/gateway/registry"
)

// heardEvery is how often it is kept when registered devices were heard last:
// after a crash their list is as old as that at most.
const heardEvery = 5 * time.Minute

// A remembrance is when registered devices were last heard before this start.
type remembrance struct {
	path   string
	before map[string]time.Time
}

// openRemembrance reads what an earlier run has kept. A file that cannot be read
// costs the ages in the list of devices, no more.
func openRemembrance(data string) (*remembrance, error) {
	r := &remembrance{path: filepath.Join(data, "heard.json")}
	text, err := os.ReadFile(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &r.before)
	}
	if err != nil {
		r.before = nil
		return r, fmt.Errorf("read when devices were last heard: %w", err)
	}
	return r, nil
}

// of returns when the device was last heard before this start.
func (r *remembrance) of(device string) *time.Time {
	if at, ok := r.before[device]; ok {
		return &at
	}
	return nil
}

// keepHeard keeps it now and then, and when ctx ends.
func (g *instance) keepHeard(ctx context.Context) {
	failing := false
	for running := true; running; {
		running = wait(ctx, heardEvery)
		err := g.heard.keep(g.lastHeard())
		if err != nil && !failing {
			g.logger.Warn("when devices were last heard cannot be kept, trying again", "error", err)
		}
		failing = err != nil
	}
}

// lastHeard is when each registered device was last heard, in this run or before.
func (g *instance) lastHeard() map[string]time.Time {
	last := map[string]time.Time{}
	heard := g.intake.Heard()
	for _, d := range g.intake.Known().Devices.Devices() {
		if h := heard[d.ID]; h.Count > 0 {
			last[d.ID] = h.At
		} else if at := g.heard.of(d.ID); at != nil {
			last[d.ID] = *at
		}
	}
	return last
}

func (r *remembrance) keep(last map[string]time.Time) error {
	text, err := json.Marshal(last)
	if err != nil {
		return fmt.Errorf("write when devices were last heard: %w", err)
	}
	return registry.WriteFile(r.path, text)
}
