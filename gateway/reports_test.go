package main

import (
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"haidang/gateway/telemetry"
)

// TestReports: warnings of three days, by day, month, station and rule; what is
// asked of a day is of the province's day.
func TestReports(t *testing.T) {
	s := spoolIn(t, t.TempDir(), nil)
	at := time.Date(2025, 10, 26, 18, 0, 0, 0, time.UTC) // 01:00 on the 27th in Hue
	n := 0
	put := func(device string, after time.Duration, change ...func(*telemetry.Transition)) {
		t.Helper()
		n++
		first := raised(fmt.Sprint("w", n))
		first.Device, first.Site, first.Start, first.At = device, device, at.Add(after), at.Add(after)
		list := []telemetry.Transition{first}
		for _, f := range change {
			next := list[len(list)-1]
			next.N, next.Step, next.Act = next.N+1, 0, nil
			f(&next)
			list = append(list, next)
		}
		if err := s.Warnings().Append(t.Context(), append(list, list[0])); err != nil { // one of them twice
			t.Fatal(err)
		}
	}
	act := func(do telemetry.Deed, after time.Duration) func(*telemetry.Transition) {
		return func(t *telemetry.Transition) {
			t.At, t.Act = t.At.Add(after), &telemetry.Act{Do: do}
			t.FalseAlarm = t.FalseAlarm || do == telemetry.False
		}
	}
	put("a", 0, act(telemetry.Ack, 10*time.Second), act(telemetry.Ack, time.Hour))
	put("a", time.Hour, act(telemetry.Remind, time.Minute), act(telemetry.Remind, time.Minute), act(telemetry.Ack, 28*time.Second))
	put("b", 2*time.Hour, act(telemetry.Ack, 30*time.Second), act(telemetry.False, time.Hour))
	put("b", 24*time.Hour, act(telemetry.Escalate, time.Minute))
	put("b", 7*24*time.Hour)
	put("b", 0, func(t *telemetry.Transition) { t.N = 2 }) // the same without anything more
	exercise := raised("drill-1")
	exercise.Exercise, exercise.Start = true, at
	order := telemetry.Transition{Order: &telemetry.Order{Device: "a", Out: true, N: 1}}
	if err := s.Warnings().Append(t.Context(), []telemetry.Transition{exercise, order}); err != nil {
		t.Fatal(err)
	}
	r := newReporter(&annals{log: s.Warnings()}, func() time.Time { return at.AddDate(0, 1, 0) })
	ask := func(query string) summaries {
		t.Helper()
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		list, err := r.of(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return list.(summaries)
	}
	want := summaries{
		{Group: "2025-10-27", Raised: 4, Acknowledged: 3, AckMedianS: 30, AckP95S: 148, FalseAlarms: 1, Reminders: 2, Chatter: "flood-level at a", Chatters: 2},
		{Group: "2025-10-28", Raised: 1, Escalated: 1},
		{Group: "2025-11-03", Raised: 1},
	}
	if got := ask("from=2025-10-27&to=2025-11-30"); !reflect.DeepEqual(got, want) {
		t.Errorf("by day\n%+v\nwant\n%+v", got, want)
	}
	if got := ask("from=2025-10-27&to=2025-10-27&by=station"); len(got) != 2 || got[0].Raised != 2 || got[1].Group != "b" || got[1].Raised != 2 {
		t.Errorf("by station %+v", got)
	}
	if got := ask("by=month&from=2025-01-01&to=2025-12-31"); len(got) != 2 || got[0].Raised != 5 || got[1].Group != "2025-11" {
		t.Errorf("by month %+v", got)
	}
	if got := ask("by=rule&from=2025-10-27&to=2025-12-31&exercises=true"); len(got) != 1 || got[0].Raised != 7 || got[0].Group != "flood-level" {
		t.Errorf("by rule %+v", got)
	}
	text, err := want.CSV()
	if lines := strings.Split(string(text), "\r\n"); err != nil || len(lines) != 5 || lines[1] != "2025-10-27,4,3,30,148,1,0,2,0,flood-level at a,2" {
		t.Errorf("CSV %q, %v", text, err)
	}
	if text, _ = (summaries{{Group: "=1+1"}}).CSV(); !strings.Contains(string(text), "\n'=1+1,") {
		t.Errorf("a formula is written as %q", text)
	}
	for query, field := range map[string]string{"by=year": "by:", "from=x": "from:", "to=2025-13-01": "to:", "from=2025-10-28&to=2025-10-27": "from:"} {
		q, _ := url.ParseQuery(query)
		if _, err := r.of(t.Context(), q); err == nil || !strings.HasPrefix(err.Error(), field) {
			t.Errorf("%s: %v", query, err)
		}
	}
}
