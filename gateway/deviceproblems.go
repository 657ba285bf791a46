package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"haidang/gateway/intake"
	"haidang/gateway/telemetry"
)

// How much a problem matters.
const (
	rankExcused = iota + 1 // in maintenance, which somebody has said
	rankSuspect
	rankErrors
	rankBad
	rankSilent
)

// found notes a problem in both languages, which take the same figures.
func (d *deviceState) found(rank int, vi, en string, figures ...any) {
	d.rank = max(d.rank, rank)
	d.tell(telemetry.Text{VI: fmt.Sprintf(vi, figures...), EN: fmt.Sprintf(en, figures...)})
}

func (d *deviceState) tell(t telemetry.Text) {
	d.Problems, d.ProblemTexts = append(d.Problems, t.EN), append(d.ProblemTexts, t)
}

// judge says what is wrong with the device.
func (d *deviceState) judge(h intake.Heard, now time.Time, up time.Duration) {
	d.Problems, d.ProblemTexts = []string{}, nil
	if d.Period != nil {
		d.tell(d.Period.tell(""))
	}
	d.judgeSilence(now, up)
	d.judgeLink(h)
	d.judgeQuality()
	if d.rank == 0 && h.Quality == telemetry.Bad {
		d.found(rankBad, "hỏng, theo báo cáo của chính thiết bị", "bad, by its own word")
	}
	if len(d.Errors) > 0 {
		var parts []string
		for _, reason := range slices.Sorted(maps.Keys(d.Errors)) {
			parts = append(parts, fmt.Sprintf("%d %s", d.Errors[reason], reason))
		}
		d.found(rankErrors, "không dùng được trong 24 giờ: %s", "set aside in 24 h: %s", strings.Join(parts, ", "))
	}
	for _, value := range slices.Sorted(maps.Keys(d.ValuePeriods)) {
		p := d.ValuePeriods[value]
		d.rank = max(d.rank, rankExcused)
		d.tell(p.tell(value + ": "))
	}
	if d.Period != nil {
		d.rank = rankExcused
	}
}

func (d *deviceState) judgeQuality() {
	for _, kind := range slices.Sorted(maps.Keys(d.Latest)) {
		l := d.Latest[kind]
		for _, value := range slices.Sorted(maps.Keys(l.Quality)) {
			vi, en := "", ""
			if test := l.Failed[value]; test != "" {
				vi, en = " ("+testText(test)+")", " ("+test+")"
			}
			switch l.Quality[value] {
			case telemetry.Bad.String():
				d.found(rankBad, "%[1]s hỏng%[2]s", "%[1]s bad%[3]s", value, vi, en)
			case telemetry.Suspect.String():
				d.found(rankSuspect, "%[1]s đáng ngờ%[2]s", "%[1]s suspect%[3]s", value, vi, en)
			}
		}
	}
}

// testText is the Vietnamese name of a test of quality.
func testText(test string) string {
	switch test {
	case "gross_range":
		return "ngoài khoảng cho phép"
	case "spike":
		return "nhảy vọt"
	case "rate_of_change":
		return "thay đổi quá nhanh"
	case "flat_line":
		return "đứng yên quá lâu"
	}
	return test
}

// tell says what the period is, of what is named before it.
func (p *periodState) tell(before string) telemetry.Text {
	vi := map[string]string{"maintenance": "bảo trì", "calibrating": "hiệu chuẩn"}[p.State]
	t := telemetry.Text{VI: before + vi, EN: before + p.State}
	if p.Until != nil {
		until := p.Until.In(vietnam).Format("15:04 02/01")
		t.VI, t.EN = t.VI+" đến "+until, t.EN+" until "+until
	}
	return telemetry.Text{VI: fmt.Sprintf("%s, %s: %s", t.VI, p.By, p.Why), EN: fmt.Sprintf("%s by %s: %s", t.EN, p.By, p.Why)}
}

// judgeSilence looks whether the device reports as often as it should.
func (d *deviceState) judgeSilence(now time.Time, up time.Duration) {
	if !d.Registered {
		return
	}
	interval, _ := telemetry.ParseDuration(d.Interval) // "" is not known: 0
	patience := 2*interval.Std() + 5*time.Second
	switch {
	case d.Heard == nil && interval > 0 && up > patience:
		d.found(rankSilent, "không nghe thấy từ khi hệ thống chạy, %[1]s trước; đáng lẽ mỗi %[2]s", "not heard since the gateway started, %[1]s ago; expected every %[2]s", ago(up), d.Interval)
	case d.Heard == nil && interval == 0:
		d.found(rankSuspect, "không nghe thấy từ khi hệ thống chạy, %s trước", "not heard since the gateway started, %s ago", ago(up))
	case d.Heard != nil && interval > 0 && now.Sub(*d.Heard) > patience && up > patience: // after a start it has its time
		d.found(rankSilent, "mất tín hiệu %[1]s; đáng lẽ mỗi %[2]s", "silent for %[1]s; expected every %[2]s", ago(now.Sub(*d.Heard)), d.Interval)
	}
}

// judgeLink looks at a link that is down. A station that connects, reports and
// goes, and reports as often as it should, is well.
func (d *deviceState) judgeLink(h intake.Heard) {
	if d.Up == nil || *d.Up {
		return
	}
	cause := ""
	if h.Cause != "" {
		cause = ": " + h.Cause
	}
	switch {
	case d.Heard == nil || d.rank == rankSilent: // a line or a receiver; or it is missed
		d.found(rankSilent, "mất đường truyền%s", "link down%s", cause)
	case d.Interval == "":
		d.found(rankSuspect, "mất đường truyền%s", "link down%s", cause)
	}
}
