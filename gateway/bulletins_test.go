package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/ioc/cap"
	"haidang/gateway/scenario"
	"haidang/gateway/telemetry"
)

// TestBulletinsOfTheScenarios plays every scenario of the shipped packs, and holds
// every CAP message of it against the schema and the rules that the schema does not
// check. The flood of October 2025, from its levels on, gives the chain that was to
// be sent.
func TestBulletinsOfTheScenarios(t *testing.T) {
	t.Parallel()
	files, err := scenarioFiles([]string{filepath.Join("..", "rules", "packs")})
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	played, messages := 0, 0
	flood := ""
	for _, name := range files {
		bundle, faults := loadScenarios(name, regexp.MustCompile(""))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for i := range bundle.file.Scenarios {
			s := &bundle.file.Scenarios[i]
			outcome, faults, err := scenario.Run(s, bundle.grounds[i])
			if err != nil || len(faults) > 0 {
				t.Fatalf("%s: %v %v", s.Name, faults, err)
			}
			played++
			types := bulletinsOf(t, filepath.Join(folder, fmt.Sprintf("%03d", played)), bundle.grounds[i], outcome)
			messages += len(types)
			if strings.HasPrefix(s.Name, "Kim Long 5.05 m on 27 October 2025") {
				flood = strings.Join(types, "\n")
			}
		}
	}
	want := strings.Join([]string{
		"kim-long 14:00 26/10 Alert Moderate refers 0", "kim-long 22:00 26/10 Update Severe refers 1", "kim-long 09:00 27/10 Update Extreme refers 2",
		"kim-long 21:00 27/10 Update Extreme refers 3", "kim-long 09:00 28/10 Update Extreme refers 4", "kim-long 17:00 28/10 Update Severe refers 5",
		"kim-long 01:00 29/10 Update Extreme refers 6", "kim-long 13:00 29/10 Update Extreme refers 7", "kim-long 01:00 30/10 Update Extreme refers 8",
		"kim-long 02:00 30/10 Update Severe refers 9", "kim-long 14:00 30/10 Update Severe refers 10", "kim-long 17:00 30/10 Update Moderate refers 11",
		"kim-long 02:00 31/10 Cancel Minor refers 12",
	}, "\n")
	if flood != want {
		t.Errorf("the flood of 2025 gives\n%s\nwant\n%s", flood, want)
	}
	found, err := filepath.Glob(filepath.Join(folder, "*", "*.xml"))
	if err != nil || len(found) != messages || messages < 100 {
		t.Fatalf("%d messages of %d scenarios, %d files, %v", messages, played, len(found), err)
	}
	for list := range slices.Chunk(found, 200) {
		chainOf(t, list)
	}
	t.Logf("%d scenarios, %d messages", played, messages)
}

// bulletinsOf writes the messages of a scenario into a folder, with their renewals,
// and says what they are.
func bulletinsOf(t *testing.T, folder string, ground *scenario.Ground, outcome *scenario.Outcome) (types []string) {
	t.Helper()
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	at := &places{known: func() intake.Known { return intake.Known{Kinds: ground.Kinds, Devices: ground.Devices} }}
	at.setZones(nil)
	composer := cap.NewComposer(cap.Config{Sender: "haidang@ioc.hue.example"}, at, "box")
	chronicle := cap.NewChronicle()
	write := func(b cap.Bulletin) {
		text, err := composer.Message(&b).Encode()
		if err != nil {
			t.Error(err)
		}
		if err := os.WriteFile(filepath.Join(folder, b.File()), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[string]bool{}
	tell := func(now time.Time) {
		for _, b := range slices.Backward(chronicle.Newest(now.Add(-time.Second), now)) {
			if seen[b.Identifier] {
				continue
			}
			seen[b.Identifier] = true
			write(b)
			m := composer.Message(&b)
			types = append(types, fmt.Sprintf("%s %s %s %s refers %d", b.Warning.Device, b.Sent.In(vietnam).Format("15:04 02/01"), m.Type, m.Infos[0].Severity, len(strings.Fields(m.References))))
		}
	}
	clock := outcome.Start
	for _, tr := range outcome.Transitions {
		if tr.Shadow || tr.State == telemetry.Pending {
			continue
		}
		for ; clock.Before(tr.At); clock = clock.Add(time.Hour) {
			tell(clock)
		}
		tell(tr.At.Add(-1))
		chronicle.Apply(tr.Warning)
		tell(tr.At)
	}
	return types
}

// TestOutOfServiceEndsTheChain: a real board, a warning that goes out of service
// and comes back: Alert, Cancel that is no all-clear, Alert, Cancel.
func TestOutOfServiceEndsTheChain(t *testing.T) {
	now := time.Date(2025, 10, 27, 2, 0, 0, 0, time.UTC)
	board, chronicle := telemetry.NewBoard(), cap.NewChronicle()
	var types []string
	put := func(tr telemetry.Transition) {
		t.Helper()
		if !board.Apply(tr) {
			t.Fatalf("%+v is known", tr)
		}
		if !isTold(&tr) {
			return
		}
		if b, is := chronicle.Of(tr.Warning); is {
			types = append(types, b.Type)
		}
		chronicle.Apply(tr.Warning)
	}
	order := func(out bool, n int) {
		t.Helper()
		o, err := board.Order(telemetry.Order{Device: "kim-long", Out: out, N: n, By: "Lan", Why: "x", At: now})
		if err != nil {
			t.Fatal(err)
		}
		put(o)
		for _, tr := range board.Due(now) {
			put(tr)
		}
	}
	step := func(n int, severity telemetry.Severity, state telemetry.State) {
		now = now.Add(time.Minute)
		s := raised("a")
		s.Step, s.At, s.Severity, s.State = n, now, severity, state
		next, _ := board.Step(s)
		put(next)
	}
	step(1, telemetry.Severe, telemetry.Active)
	order(true, 0)
	step(2, telemetry.Extreme, telemetry.Active) // nobody is told of what it does meanwhile
	order(false, 1)
	act, err := board.Act(telemetry.Act{ID: "a", N: 4, Do: telemetry.Shelve, By: "Lan", At: now, Until: new(now.Add(time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	put(act) // an operator wants quiet; for the public the danger is the same
	step(3, telemetry.Severe, telemetry.Active)
	step(4, telemetry.Severe, telemetry.Cleared)
	if got := strings.Join(types, " "); got != "Alert Cancel Alert Update Cancel" {
		t.Errorf("the chain is %s", got)
	}
}
