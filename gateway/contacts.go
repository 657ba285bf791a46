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

	"haidang/gateway/intake"
	"haidang/gateway/registry"
)

// contactsEvery is how often it is looked whether there are new contacts to be
// kept: after a crash operators may be told again of those that are younger.
const contactsEvery = 5 * time.Second

func (g *instance) contactsFile() string { return filepath.Join(g.cfg.Data, "contacts.json") }

// rememberContacts makes the intake know the devices that are not registered and
// came in earlier runs, so that first contact with each is told once. A file that
// cannot be read costs no more than that.
func (g *instance) rememberContacts() error {
	text, err := os.ReadFile(g.contactsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var earlier []intake.Contact
	if err == nil {
		err = json.Unmarshal(text, &earlier)
	}
	if err != nil {
		return fmt.Errorf("read which devices came by themselves: %w", err)
	}
	g.intake.Remember(earlier)
	g.keptContacts = len(g.intake.Contacts())
	return nil
}

// keepContacts keeps them when there are others, until ctx ends.
func (g *instance) keepContacts(ctx context.Context) {
	kept, failing := g.keptContacts, false
	for running := true; running; {
		running = wait(ctx, contactsEvery)
		list := g.intake.Contacts()
		if len(list) == kept {
			continue
		}
		text, err := json.Marshal(list)
		if err == nil {
			err = registry.WriteFile(g.contactsFile(), text)
		}
		if err != nil && !failing {
			g.logger.Warn("it cannot be kept which devices came by themselves, trying again", "error", err)
		}
		if failing = err != nil; !failing {
			kept = len(list)
		}
	}
}
