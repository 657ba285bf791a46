package console

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

func TestHistory(t *testing.T) {
	d := newDesk()
	sources := d.sources()
	sources.History = func(_ context.Context, id string) ([]telemetry.Transition, error) {
		switch id {
		case "slow":
			return nil, context.DeadlineExceeded
		case "broken":
			return nil, errors.New("secret path")
		case "kim-long-flood-1":
			w, _ := d.warning(id)
			return []telemetry.Transition{{Warning: w, Step: 1}, {Warning: w, Act: &telemetry.Act{Do: telemetry.Ack, By: "Lan", At: time.Unix(1, 0)}}}, nil
		}
		return nil, nil
	}
	_, base, _ := start(t, sources)
	status, _, body := call(t, "GET", base+"/api/v1/warnings/kim-long-flood-1/history", "")
	var answer struct{ Transitions []telemetry.Transition }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || status != 200 || len(answer.Transitions) != 2 || answer.Transitions[1].Act.By != "Lan" {
		t.Errorf("status %d, %v: %s", status, err, body)
	}
	for id, want := range map[string]int{"none": 404, "slow": 503, "broken": 500} {
		if status, _, _ := call(t, "GET", base+"/api/v1/warnings/"+id+"/history", ""); status != want {
			t.Errorf("history of %s: status %d, want %d", id, status, want)
		}
	}
	if status, _, _ := call(t, "POST", base+"/api/v1/warnings/kim-long-flood-1/history", "{}"); status != 405 {
		t.Errorf("POST: status %d, want 405", status)
	}
}
