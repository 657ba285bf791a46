package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"haidang/gateway/account"
	"haidang/gateway/registry"
	"haidang/gateway/spool"
)

// What people change at run time lies in files of the data folder of the machine
// that has the part ioc. So that another can go on with it, that machine keeps them
// in the cluster as well: whoever takes the part fetches them first, and machines
// that take readings in fetch what concerns them.
//
// Each group is a checkpoint "files.<group>": a JSON object of contents by name,
// gzipped. The checkpoint "files" has the sum of each.
const (
	sharedIndex   = "files"
	shareEvery    = time.Second
	fetchEvery    = 5 * time.Second
	maxShared     = 64 << 20 // bytes of a group, before it is packed
	syncedFile    = "shared.json"
	groupAccounts = "accounts"
	groupDevices  = "devices"
	groupRules    = "rules"
	groupLetters  = "letters"
)

// sharedGroups are the files of each group; of a name that ends with a slash, all
// that are in the folder.
func sharedGroups() map[string][]string {
	return map[string][]string{
		groupAccounts: {account.FileName},
		groupDevices:  {"devices.json", "devices-audit.jsonl"},
		groupRules:    {"rules/"},
		groupLetters:  {lettersFile},
	}
}

// A sharer keeps the files of a data folder and those of the cluster the same.
type sharer struct {
	data   string
	groups []string // those that are shared

	mu     sync.Mutex
	synced map[string]string // sum of each group as it was here and in the cluster at the same time
	marks  map[string]string // of the files of each group when they were looked at last
}

// newSharer reads what was the same when this machine looked last.
func newSharer(data string, groups ...string) (*sharer, error) {
	sh := &sharer{data: data, groups: groups, synced: map[string]string{}, marks: map[string]string{}}
	text, err := os.ReadFile(filepath.Join(data, syncedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return sh, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what is shared with other machines: %w", err)
	}
	if json.Unmarshal(text, &sh.synced) != nil || sh.synced == nil {
		sh.synced = map[string]string{} // what differs is set aside then
	}
	return sh, nil
}

// index returns the sums of what the cluster has, by group.
func (sh *sharer) index(ctx context.Context, s *spool.Spool) (map[string]string, error) {
	index := map[string]string{}
	text, err := s.LoadCheckpoint(ctx, sharedIndex)
	if err == nil && text != nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil {
		return nil, fmt.Errorf("read which files the cluster has: %w", err)
	}
	return index, nil
}

// fetch makes the files here what those of the cluster are, and returns the groups
// that it has changed. What was changed here by itself meanwhile is kept beside.
func (sh *sharer) fetch(ctx context.Context, s *spool.Spool, tell func(group, aside string)) (changed []string, err error) {
	index, err := sh.index(ctx, s)
	if err != nil {
		return nil, err
	}
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, group := range sh.groups {
		if index[group] == "" || index[group] == sh.synced[group] {
			continue
		}
		packed, err := s.LoadCheckpoint(ctx, "files."+group)
		if err != nil {
			return changed, err
		}
		files, err := unpack(packed)
		if err != nil {
			return changed, fmt.Errorf("read the %s of the cluster: %w", group, err)
		}
		if sumOfFiles(files) != index[group] {
			continue // somebody is about to change them
		}
		own, err := readShared(sh.data, group)
		if err != nil {
			return changed, err
		}
		if sum := sumOfFiles(own); sum != index[group] {
			if len(own) > 0 && sum != sh.synced[group] {
				aside := "own-" + time.Now().UTC().Format("20060102T150405")
				if err := writeShared(filepath.Join(sh.data, aside), own); err != nil {
					return changed, err
				}
				tell(group, filepath.Join(sh.data, aside))
			}
			if err := writeShared(sh.data, files); err != nil {
				return changed, err
			}
			changed = append(changed, group)
		}
		if err := sh.note(group, index[group]); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// push puts into the cluster what has changed here.
func (sh *sharer) push(ctx context.Context, s *spool.Spool) error {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	for _, group := range sh.groups {
		marks := marksOf(sh.data, group)
		if marks == sh.marks[group] {
			continue
		}
		files, err := readShared(sh.data, group)
		if err != nil {
			return err
		}
		sum := sumOfFiles(files)
		if len(files) == 0 || sum == sh.synced[group] {
			sh.marks[group] = marks
			continue
		}
		packed, err := pack(files)
		if err != nil {
			return fmt.Errorf("share the %s: %w", group, err)
		}
		index, err := sh.index(ctx, s)
		if err != nil {
			return err
		}
		index[group] = sum
		text, err := json.Marshal(index)
		if err != nil {
			return err
		}
		if err := errors.Join(s.SaveCheckpoint(ctx, "files."+group, packed), s.SaveCheckpoint(ctx, sharedIndex, text)); err != nil {
			return fmt.Errorf("share the %s: %w", group, err)
		}
		if err := sh.note(group, sum); err != nil {
			return err
		}
		sh.marks[group] = marks
	}
	return nil
}

// marksOf says by which files may have changed: names, sizes and times.
func marksOf(data, group string) string {
	var b strings.Builder
	for _, name := range sharedGroups()[group] {
		// What cannot be looked at is told by who reads it.
		_ = filepath.WalkDir(filepath.Join(data, name), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return nil
			}
			if info, err := entry.Info(); err == nil && !entry.IsDir() {
				fmt.Fprintf(&b, "%q %d %d\n", path, info.Size(), info.ModTime().UnixNano())
			}
			return nil
		})
	}
	return b.String()
}

// note keeps that a group is the same here and in the cluster. The lock is held.
func (sh *sharer) note(group, sum string) error {
	sh.synced[group] = sum
	text, err := json.Marshal(sh.synced)
	if err != nil {
		return err
	}
	return registry.WriteFile(filepath.Join(sh.data, syncedFile), text)
}

// readShared reads the files of a group, those that there are.
func readShared(data, group string) (map[string][]byte, error) {
	files, size := map[string][]byte{}, 0
	add := func(name string) error {
		text, err := os.ReadFile(filepath.Join(data, name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if size += len(text); err == nil && size > maxShared {
			err = fmt.Errorf("the %s have more than the %d MiB that are shared", group, maxShared>>20)
		}
		files[filepath.ToSlash(name)] = text
		return err
	}
	for _, name := range sharedGroups()[group] {
		if !strings.HasSuffix(name, "/") {
			if err := add(name); err != nil {
				return nil, fmt.Errorf("read what is shared with other machines: %w", err)
			}
			continue
		}
		err := filepath.WalkDir(filepath.Join(data, name), func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !entry.Type().IsRegular() || strings.HasPrefix(entry.Name(), ".") {
				return err
			}
			within, err := filepath.Rel(data, path)
			if err != nil {
				return err
			}
			return add(within)
		})
		if err != nil {
			return nil, fmt.Errorf("read what is shared with other machines: %w", err)
		}
	}
	return files, nil
}

// writeShared writes files. Those of folders within come first: rules/history.jsonl
// names texts that must be there.
func writeShared(data string, files map[string][]byte) error {
	names := slices.SortedFunc(maps.Keys(files), func(a, b string) int {
		return strings.Count(b, "/") - strings.Count(a, "/")
	})
	for _, name := range names {
		if !filepath.IsLocal(filepath.FromSlash(name)) {
			return fmt.Errorf("the cluster has a file %q, which is not one of ours", name)
		}
		path := filepath.Join(data, filepath.FromSlash(name))
		err := os.MkdirAll(filepath.Dir(path), 0o750)
		if err == nil {
			err = registry.WriteFile(path, files[name])
		}
		if err != nil {
			return fmt.Errorf("write what is shared by other machines: %w", err)
		}
	}
	return nil
}

func sumOfFiles(files map[string][]byte) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%q %d\n", name, len(files[name]))
		_, _ = sum.Write(files[name])
	}
	return hex.EncodeToString(sum.Sum(nil))
}

func pack(files map[string][]byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	err := errors.Join(json.NewEncoder(w).Encode(files), w.Close())
	return b.Bytes(), err
}

func unpack(packed []byte) (files map[string][]byte, err error) {
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	err = json.NewDecoder(io.LimitReader(r, 2*maxShared)).Decode(&files)
	return files, err
}

// openSharer makes what shares the files of this machine's data folder: with the
// role ioc all of them, else the accounts. A file of accounts that the configuration
// names is nobody's but its own.
func (m *machine) openSharer() (err error) {
	var groups []string
	if m.cfg.has(roleIOC) {
		groups = append(groups, groupDevices, groupRules, groupLetters)
	}
	if m.cfg.Accounts.File == "" {
		groups = append(groups, groupAccounts)
	}
	m.files, err = newSharer(m.cfg.Data, groups...)
	return err
}

// setAside tells that files of this machine were not those of the cluster.
func (m *machine) setAside(group, aside string) {
	m.logger.Warn("what was changed on this machine by itself is not in force: the centre has changed it as well; its own version is kept aside", "what", group, "folder", aside)
}

// share puts what is changed here into the cluster, until ctx ends.
func (m *machine) share(ctx context.Context, s *spool.Spool) {
	failing := false
	for running := true; running; {
		running = wait(ctx, shareEvery)
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), changePatience)
		err := m.files.push(last, s)
		cancel()
		if err != nil && !failing && !errors.Is(err, spool.ErrTaken) {
			m.logger.Error("what is changed at run time is not shared with the other machines, trying again", "error", err)
		}
		failing = err != nil
	}
}

// fetchForIngest takes over what the centre has changed of accounts and devices,
// until ctx ends.
func (m *machine) fetchForIngest(ctx context.Context, s *spool.Spool, g *instance, devices *sharer) {
	failing := false
	for wait(ctx, fetchEvery) {
		err := m.fetchOnce(ctx, s, devices, g)
		if err != nil && ctx.Err() == nil && !failing {
			m.logger.Error("what the centre changes of accounts and devices is not known here, trying again", "error", err)
		}
		failing = err != nil
	}
}

// fetchOnce is one look; g, when it is not nil, puts what has changed in force.
func (m *machine) fetchOnce(ctx context.Context, s *spool.Spool, devices *sharer, g *instance) error {
	if !m.cfg.has(roleIOC) {
		if _, err := m.files.fetch(ctx, s, m.setAside); err != nil { // accounts read their file themselves
			return err
		}
	}
	changed, err := devices.fetch(ctx, s, m.setAside)
	if err == nil && g != nil && len(changed) > 0 {
		err = g.adoptChanges()
	}
	return err
}

// adoptChanges puts in force what was fetched of devices that were changed at run
// time.
func (g *instance) adoptChanges() error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	r, err := registry.Open(g.cfg.Data, g.logger)
	if err != nil {
		return err
	}
	before := g.registry
	g.registry = r
	w, err := g.changed(g.files)
	if err != nil {
		g.registry = before
		return err
	}
	g.world = w
	g.intake.SetKnown(w.Known)
	g.intake.SetPeriods(r.Periods())
	g.refuse()
	return nil
}
