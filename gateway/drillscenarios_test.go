package main

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestDrillOfTheGatewaysOwnScenarios starts one of the scenarios that lie beside the
// rules by its name alone, then an exercise without a scenario.
func TestDrillOfTheGatewaysOwnScenarios(t *testing.T) {
	t.Parallel()
	centre := newRecipient(t)
	g := prepare(t, "devices: devices.yaml\nrules: [rules/*.yaml]\nioc:\n"+entryOf("centre", centre.url))
	g.write("devices.yaml", "devices:\n  - {id: kim-long, name: Kim Long, kinds: [river], facts: {alarm1_m: 1, alarm2_m: 2, alarm3_m: 3.5}}\n")
	g.write("rules/flood.yaml", "rules:\n  - {name: flood, on: river, when: level_m >= device.alarm2_m, severity: severe, for: 0s, message: {vi: lũ, en: flood}}\n")
	g.write("rules/flood.test.yaml", strings.ReplaceAll(drillFile, "expect: []", "partial: true"))
	g.write("rules/broken.test.yaml", "scenarios: [")
	g.start()
	_, body := g.try("/api/v1/drill/scenarios")
	var list struct{ Scenarios []playableScenario }
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Scenarios) != 1 || list.Scenarios[0].Name != "flood" || !slices.Equal(list.Scenarios[0].Devices, []string{"kim-long"}) {
		t.Fatalf("%s: %v; want flood alone, that of phu-oc has no device here", body, err)
	}
	start, _ := json.Marshal(map[string]string{"do": "start", "file": list.Scenarios[0].File, "name": "flood", "last": "2s", "by": "Lan", "why": "diễn tập"})
	var status int
	var answer string
	eventually(t, "the rules are in force", 10*time.Second, func() bool {
		status, answer = g.post("/api/v1/drill", string(start))
		return status != http.StatusServiceUnavailable
	})
	if status != http.StatusOK || !strings.Contains(answer, `"scenario":"flood"`) {
		t.Fatalf("%d %s", status, answer)
	}
	eventually(t, "the flood of the exercise is raised and over", 20*time.Second, func() bool {
		return slices.ContainsFunc(centre.got(), func(w telemetry.Warning) bool { return w.Rule == "flood" && w.State == telemetry.Cleared && w.Exercise })
	})
	eventually(t, "the exercise is over", 5*time.Second, func() bool { _, body := g.try("/api/v1/drill"); return strings.Contains(body, "null") })

	plain := `{"do":"start","device":"kim-long","severity":"moderate","text":"thử còi","last":"1h","by":"Lan","why":"diễn tập"}`
	if status, answer := g.post("/api/v1/drill", plain); status != http.StatusOK || !strings.Contains(answer, `"steps":2`) {
		t.Fatalf("%d %s", status, answer)
	}
	eventually(t, "the warning of the plain exercise is raised and told", 10*time.Second, func() bool {
		return slices.ContainsFunc(centre.got(), func(w telemetry.Warning) bool {
			return w.Rule == plainRule && w.State == telemetry.Active && w.Exercise && w.Severity == telemetry.Moderate && w.Message.VI == "thử còi"
		})
	})
	if status, answer := g.post("/api/v1/drill", plain); status != http.StatusConflict {
		t.Errorf("a second exercise: %d %s", status, answer)
	}
	if _, page := g.try("/keys"); !strings.Contains(page, "<title>DIỄN TẬP") {
		t.Error("a page does not say that there is an exercise")
	}
	if status, answer := g.post("/api/v1/drill", `{"do":"end","by":"Lan","why":"xong"}`); status != http.StatusOK {
		t.Errorf("%d %s", status, answer)
	}
	eventually(t, "it is cleared with the exercise", 10*time.Second, func() bool { return len(g.warnings("")) == 0 })

	for body, field := range map[string]string{
		`{"do":"start","file":"../gateway.yaml","by":"Lan","why":"x"}`:                                      "file",
		`{"do":"start","device":"kim-lung","by":"Lan","why":"x"}`:                                           "device",
		`{"do":"start","device":"kim-long","last":"25h","by":"Lan","why":"x"}`:                              "last",
		`{"do":"start","device":"kim-long","severity":"dire","by":"Lan","why":"x"}`:                         "",
		`{"do":"start","device":"kim-long","text":"` + strings.Repeat("x", 501) + `","by":"Lan","why":"x"}`: "text",
	} {
		if status, answer := g.post("/api/v1/drill", body); status != http.StatusBadRequest || field != "" && !strings.Contains(answer, `"field":"`+field+`"`) {
			t.Errorf("%.80s: %d %s", body, status, answer)
		}
	}
}
