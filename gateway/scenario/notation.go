package scenario

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"haidang/gateway/telemetry"
)

// MaxSlots bounds the slots of a series, and so what one item can stand for.
const MaxSlots = 200_000

// A slot is what one value of a series is at one of its times.
type slot struct {
	present bool
	silent  bool // nothing of the series is sent
	value   telemetry.Value
	judged  bool // its quality was given
}

// A list is one value of a series, slot by slot.
type list struct {
	slots   []slot
	forever bool // the last slot holds on
}

// at returns the slot n; beyond the end the value is absent.
func (l *list) at(n int) slot {
	switch {
	case n < len(l.slots):
		return l.slots[n]
	case l.forever && len(l.slots) > 0:
		return l.slots[len(l.slots)-1]
	}
	return slot{}
}

// parseList reads what is written for a value of a series; every is the
// series' interval. words allows bare words, as of qualities.
func parseList(name string, written any, every time.Duration, words bool) (*list, error) {
	text, isText := written.(string)
	if !isText {
		s, err := plainSlot(name, written)
		return &list{slots: []slot{s}}, err
	}
	items, err := split(text)
	if err != nil {
		return nil, err
	}
	l := &list{}
	for i := 0; i < len(items); i++ {
		item := items[i]
		if l.forever {
			return nil, fmt.Errorf("%q comes after an item with x*, which has no end", item)
		}
		if item == "silent" {
			if i+1 == len(items) {
				return nil, fmt.Errorf(`"silent" needs a time, as in silent 30m`)
			}
			i++
			if err := l.silence(items[i], every); err != nil {
				return nil, err
			}
			continue
		}
		if err := l.add(name, item, words); err != nil {
			return nil, err
		}
	}
	if len(l.slots) == 0 {
		return nil, fmt.Errorf("no value is there; want items such as 0.8 +0.1x20 _x5 silent 30m")
	}
	return l, nil
}

// split cuts the text at spaces, but not within quotes.
func split(text string) ([]string, error) {
	var items []string
	begin, quoted := -1, false
	for i, c := range text {
		switch {
		case c == '\'':
			quoted = !quoted
			if begin < 0 {
				begin = i
			}
		case c == ' ' && !quoted:
			if begin >= 0 {
				items = append(items, text[begin:i])
			}
			begin = -1
		case begin < 0:
			begin = i
		}
	}
	if quoted {
		return nil, fmt.Errorf("a quote ' in %q is not closed", text)
	}
	if begin >= 0 {
		items = append(items, text[begin:])
	}
	return items, nil
}

func (l *list) silence(text string, every time.Duration) error {
	d, err := telemetry.ParseDuration(text)
	if err != nil {
		return err
	}
	if every <= 0 || d <= 0 || d.Std()%every != 0 {
		return fmt.Errorf("silent %s is not a multiple of the interval %s", text, telemetry.Duration(every))
	}
	return l.repeat(slot{silent: true}, int(min(d.Std()/every, MaxSlots+1)))
}

func (l *list) repeat(s slot, n int) error {
	if len(l.slots)+n > MaxSlots {
		return fmt.Errorf("more than %d readings", MaxSlots)
	}
	for range n {
		l.slots = append(l.slots, s)
	}
	return nil
}

// add takes in one item.
func (l *list) add(name, item string, words bool) error {
	body, quality, judged, err := cutQuality(item)
	if err != nil {
		return err
	}
	body, n, err := l.cutCount(body)
	if err != nil {
		return fmt.Errorf("%q: %w", item, err)
	}
	s := slot{present: true, judged: judged, value: telemetry.Value{Name: name, Quality: quality}}
	counted := n != 0
	n = max(n, 1)
	switch {
	case body == "_":
		return l.repeat(slot{}, n)
	case body == "=":
		before, err := l.before(item)
		if err != nil {
			return err
		}
		if !judged {
			return l.repeat(before, n)
		}
		s.value.Number, s.value.Text = before.value.Number, before.value.Text
		return l.repeat(s, n)
	case strings.HasPrefix(body, ".."):
		return l.ramp(item, body[2:], s, n)
	case strings.HasPrefix(body, "'"):
		s.value.Text = strings.Trim(body, "'")
		return l.repeat(s, n)
	case counted && !l.forever && (body[0] == '+' || body[0] == '-'):
		return l.steps(item, body, s, n)
	case body[0] == '+':
		return fmt.Errorf("%q: write %sx1 for one step up, and the number alone for a value", item, item)
	}
	f, err := strconv.ParseFloat(body, 64)
	if err == nil && telemetry.Finite(f) {
		s.value.Number = f
		return l.repeat(s, n)
	}
	if words {
		s.value.Text = body
		return l.repeat(s, n)
	}
	return fmt.Errorf("%q is not a number, +0.1x20, ..5x6, =, _, silent 30m or a word in quotes ('word')", item)
}

// cutQuality cuts !quality off an item.
func cutQuality(item string) (body string, q telemetry.Quality, judged bool, err error) {
	i := strings.LastIndexByte(item, '!')
	if i < 0 || strings.LastIndexByte(item, '\'') > i {
		return item, telemetry.Good, false, nil
	}
	q, err = telemetry.ParseQuality(item[i+1:])
	if err != nil {
		return "", q, false, fmt.Errorf("%q: %w", item, err)
	}
	if i == 0 {
		return "", q, false, fmt.Errorf("%q: a value is missing before the quality", item)
	}
	return item[:i], q, true, nil
}

// cutCount cuts x20 or x* off an item; n is 0 without a count.
func (l *list) cutCount(item string) (body string, n int, err error) {
	i := strings.LastIndexByte(item, 'x')
	if i < 1 || strings.LastIndexByte(item, '\'') > i {
		return item, 0, nil
	}
	if item[i+1:] == "*" {
		l.forever = true
		return item[:i], 1, nil
	}
	n, err = strconv.Atoi(item[i+1:])
	if err != nil {
		return item, 0, nil // an x within a word
	}
	if n < 1 || n > MaxSlots {
		return "", 0, fmt.Errorf("the count is not in 1..%d", MaxSlots)
	}
	return item[:i], n, nil
}

// before returns the newest slot with a value.
func (l *list) before(item string) (slot, error) {
	for i := len(l.slots) - 1; i >= 0; i-- {
		if l.slots[i].present {
			return l.slots[i], nil
		}
	}
	return slot{}, fmt.Errorf("%q has no value before it", item)
}

func (l *list) steps(item, body string, s slot, n int) error {
	step, err := strconv.ParseFloat(body, 64)
	if err != nil {
		return fmt.Errorf("%q is not a step such as +0.1x20", item)
	}
	before, err := l.before(item)
	if err != nil {
		return err
	}
	return l.climb(before, s, n, func(i int) float64 { return before.value.Number + float64(i)*step })
}

func (l *list) ramp(item, body string, s slot, n int) error {
	to, err := strconv.ParseFloat(body, 64)
	if err != nil {
		return fmt.Errorf("%q is not a way to a number such as ..5.05x6", item)
	}
	before, err := l.before(item)
	if err != nil {
		return err
	}
	from := before.value.Number
	return l.climb(before, s, n, func(i int) float64 { return from + (to-from)*float64(i)/float64(n) })
}

// climb adds n numbers. They are rounded to nine decimals: an author who writes
// 0.8 +0.1x2 means 1, not 1.0000000000000002.
func (l *list) climb(before, s slot, n int, at func(i int) float64) error {
	if before.value.Text != "" {
		return fmt.Errorf("a step cannot follow the word %q", before.value.Text)
	}
	if len(l.slots)+n > MaxSlots {
		return fmt.Errorf("more than %d readings", MaxSlots)
	}
	for i := 1; i <= n; i++ {
		rounded, err := strconv.ParseFloat(strconv.FormatFloat(at(i), 'f', 9, 64), 64)
		if err != nil || !telemetry.Finite(rounded) {
			return fmt.Errorf("the steps leave the range of numbers")
		}
		s.value.Number = rounded
		l.slots = append(l.slots, s)
	}
	return nil
}

// plainSlot makes a slot of a number, a truth, or nothing that can be read.
func plainSlot(name string, written any) (slot, error) {
	s := slot{present: true, value: telemetry.Value{Name: name}}
	switch v := written.(type) {
	case float64:
		s.value.Number = v
	case bool:
		if v {
			s.value.Number = 1
		}
	default:
		return s, fmt.Errorf("want a number, true, false or a text, not a list or keys")
	}
	return s, nil
}

// parseSingle reads the value of a single reading: a number, also with !quality,
// or a word, with or without quotes.
func parseSingle(name string, written any) (slot, error) {
	text, isText := written.(string)
	if !isText {
		return plainSlot(name, written)
	}
	s := slot{present: true, value: telemetry.Value{Name: name}}
	body, quality, judged, err := cutQuality(text)
	if err == nil && judged {
		s.value.Quality, s.judged, text = quality, true, body
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && telemetry.Finite(f) {
		s.value.Number = f
		return s, nil
	}
	s.value.Text = strings.Trim(text, "'")
	if s.value.Text == "" || len(text) > telemetry.MaxTextBytes || !utf8.ValidString(text) {
		return s, fmt.Errorf("a word has 1 to %d bytes of UTF-8", telemetry.MaxTextBytes)
	}
	return s, nil
}
