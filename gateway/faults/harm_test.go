package faults

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// seedVariable chooses what chance does; without it CI does the same each time, so
// that it tells of a change and not of luck, and `make faults` does something else
// each time and says what.
const seedVariable = "HAIDANG_FAULTS_SEED"

// chance returns the random numbers of a test.
func chance(t testing.TB) *rand.Rand {
	t.Helper()
	return rand.New(rand.NewPCG(seedOf(t), 4))
}

// seedOf returns what the random numbers of a test come from, and prints it.
func seedOf(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(1)
	if os.Getenv(variable) != "ci" {
		seed = rand.Uint64N(1_000_000)
	}
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s is %q, expected a number", seedVariable, text)
		}
	}
	t.Logf("%s=%d", seedVariable, seed)
	return seed
}

// A harm is done to one file or folder of a data folder.
type harm struct {
	name string // below the data folder
	kind string // without numbers
	what string
	do   func(path string) error
	most int // bytes of readings that it may cost
}

func (h harm) String() string { return h.what + " " + h.name }

// What a harm may cost. A record holds at most a frame, a block of JetStream 8 MiB.
// A folder holds all, and so may a file of InfluxDB's.
const (
	mostFrame = 3 * 520 << 10 // a page of zeros lies in up to three
	mostBlock = 8<<20 + mostFrame
	mostAll   = 1 << 40
)

// harmsOf returns harms to each file and folder below dir, in an order of chance.
func harmsOf(t *testing.T, dir string, stored bool, seed uint64) (out []harm) {
	t.Helper()
	var always []harm
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == dir || entry.Name() == "lock" {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		if stored && !strings.HasPrefix(name, "influx") {
			return nil
		}
		if entry.IsDir() {
			most := 0
			if holdsReadings(name) {
				most = mostAll
			}
			out = append(out, harm{name, "missing folder", "missing folder", os.RemoveAll, most})
			return nil
		}
		info, err := entry.Info()
		if err != nil || info.Size() == 0 {
			return err
		}
		each := fileHarms(name, info.Size(), seed)
		out = append(out, each...)
		switch {
		case strings.HasSuffix(name, "KV_POSITIONS/msgs/1.blk"): // the gateway once waited two minutes for what was gone
			always = append(always, each[0])
		case strings.Contains(name, "READINGS/msgs/") && filepath.Ext(name) == ".blk": // it was not told what a cut had cost
			always = append(always[:min(len(always), 1)], each[1])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// By a hash, so that a file more or less leaves the order of the others as it is.
	slices.SortFunc(out, func(a, b harm) int {
		return cmp.Compare(draw(seed, a.name, a.kind), draw(seed, b.name, b.kind))
	})
	return append(always, out...)
}

// holdsReadings tells the folders that readings are in, and those above them.
func holdsReadings(name string) bool {
	for _, holder := range []string{"spool/jetstream/$G/streams/READINGS/msgs", "influx/data/haidang/autogen/1", "influx/wal/haidang/autogen/1", "influx/meta"} {
		if name == holder || strings.HasPrefix(holder, name+"/") || strings.HasPrefix(name, "influx") {
			return true
		}
	}
	return false
}

// draw is a random number that belongs to some words.
func draw(seed uint64, words ...string) uint64 {
	h := fnv.New64a()
	fmt.Fprint(h, seed, words)
	return rand.New(rand.NewPCG(h.Sum64(), seed)).Uint64()
}

func fileHarms(name string, size int64, seed uint64) []harm {
	record, block := 0, 0
	switch {
	case strings.Contains(name, "READINGS/msgs/") && filepath.Ext(name) == ".blk":
		record, block = mostFrame, mostBlock
	case strings.HasPrefix(name, "influx"):
		record, block = mostAll, mostAll
	}
	place := func(of string) int64 { return int64(draw(seed, name, of) % uint64(size)) }
	at, bit, cut, page := place("bit"), place("which")%8, place("cut"), place("page")&^4095
	end := min(page+4096, size)
	return []harm{
		{name, "bit", fmt.Sprintf("bit %d at %d of %d of", bit, at, size), func(p string) error {
			return change(p, at, 1, func(b []byte) { b[0] ^= 1 << bit })
		}, record},
		{name, "cut", fmt.Sprintf("cut at %d of %d of", cut, size), func(p string) error { return os.Truncate(p, cut) }, block},
		{name, "zeros", fmt.Sprintf("zeros from %d to %d of %d of", page, end, size), func(p string) error {
			return change(p, page, int(end-page), func(b []byte) { clear(b) })
		}, record},
		{name, "missing file", "missing file", os.Remove, block},
	}
}

// change changes n bytes of a file.
func change(path string, at int64, n int, how func([]byte)) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, n)
	if _, err := file.ReadAt(b, at); err != nil {
		return err
	}
	how(b)
	_, err = file.WriteAt(b, at)
	return err
}

// slowness is by how much what is bounded in time may take longer: machines that
// test are shared, and some have a third of the speed of the one that the bounds
// are for. `make faults` keeps to the bounds.
func slowness() time.Duration {
	if os.Getenv(variable) == "ci" || os.Getenv(clusterVariable) == "ci" {
		return 6
	}
	return 1
}

// filesOf returns the files below dir, but for locks and empty ones.
func filesOf(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || entry.Name() == "lock" {
			return err
		}
		if info, err := entry.Info(); err != nil || info.Size() == 0 {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files = append(files, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
