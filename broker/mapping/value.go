package mapping

import (
	"fmt"
	"sort"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"haidang/gateway/telemetry"
)

// A value says how one value of a reading is made. In YAML it is a path, a list
// of paths, a number, or an object with
//
//	path    a path or a list of paths, of which the first that is there counts
//	scale   what the number is multiplied by, default 1
//	offset  what is then added
//	words   numbers by word: {ON: 1, OFF: 0}; a word that is not there cannot be used
//	none    numbers and words that mean that there is no value: [-127, 85, unknown]
//	as      number (a word must be a number) or word; default what the payload has,
//	        and number with scale or offset
//	const   a number or a word that is always the same
type value struct {
	name    *template
	paths   []path
	scale   float64
	offset  float64
	scaled  bool
	words   map[string]float64
	none    map[string]bool // as written in JSON, words without quotes
	numbers []float64       // of none
	as      string
	fixed   *telemetry.Value
}

var valueKeys = []string{"path", "scale", "offset", "words", "none", "as", "const"}

// parseValue reads the YAML of a value.
func parseValue(at string, spec any, format string) (*value, []telemetry.Fault) {
	v := &value{scale: 1}
	keys, ok := spec.(map[string]any)
	if !ok && spec != nil {
		if n, isNumber := number(spec); isNumber {
			v.fixed = &telemetry.Value{Number: n}
			return v, nil
		}
		keys = map[string]any{"path": spec}
	}
	var faults []telemetry.Fault
	fault := func(key, format string, args ...any) {
		faults = append(faults, telemetry.Faultf(at+"."+key, format, args...))
	}
	for key, given := range keys {
		switch key {
		case "path":
			if v.paths, ok = parsePaths(given); !ok {
				faults = append(faults, telemetry.Faultf(at, "path %v is not a word or a list of words", given))
			}
		case "scale", "offset":
			n, ok := number(given)
			if !ok || key == "scale" && n == 0 {
				fault(key, "%s %v is not a number, or is 0", key, given)
			}
			v.scaled = true
			if key == "scale" {
				v.scale = n
			} else {
				v.offset = n
			}
		case "words":
			v.words = v.parseWords(given, fault)
		case "none":
			v.parseNone(given, fault)
		case "as":
			if v.as, _ = given.(string); v.as != "number" && v.as != "word" {
				fault(key, "as %v is not one of number, word", given)
			}
		case "const":
			if v.fixed = constant(given); v.fixed == nil {
				fault(key, "const %v is not a number, true, false or a word", given)
			}
		default:
			fault(key, "unknown key %q; known are %s", key, strings.Join(valueKeys, ", "))
		}
	}
	if len(faults) == 0 {
		faults = v.consistent(at, format)
	}
	sort.Slice(faults, func(i, j int) bool { return faults[i].Path < faults[j].Path })
	return v, faults
}

func (v *value) consistent(at, format string) []telemetry.Fault {
	switch {
	case v.fixed != nil && len(v.paths) > 0:
		return []telemetry.Fault{telemetry.Faultf(at+".const", "a value is either constant or has a path")}
	case v.fixed == nil && len(v.paths) == 0 && format == FormatJSON:
		return []telemetry.Fault{telemetry.Faultf(at, "the path of the value is missing")}
	case format == FormatRaw && len(v.paths) > 0:
		return []telemetry.Fault{telemetry.Faultf(at+".path", "a raw payload is the value itself; it has no paths")}
	case v.as == "word" && (v.scaled || v.words != nil):
		return []telemetry.Fault{telemetry.Faultf(at+".as", "a word has no scale, offset or words")}
	}
	return nil
}

func parsePaths(given any) ([]path, bool) {
	if s, ok := given.(string); ok && s != "" {
		return []path{parsePath(s)}, true
	}
	list, ok := given.([]any)
	var paths []path
	for _, entry := range list {
		s, isWord := entry.(string)
		if !isWord || s == "" {
			return nil, false
		}
		paths = append(paths, parsePath(s))
	}
	return paths, ok && len(paths) > 0
}

func (v *value) parseWords(given any, fault func(string, string, ...any)) map[string]float64 {
	list, ok := given.(map[string]any)
	if !ok || len(list) == 0 {
		fault("words", "words are numbers by word, as {ON: 1, OFF: 0}")
		return nil
	}
	words := map[string]float64{}
	for word, n := range list {
		f, ok := number(n)
		if !ok {
			fault("words."+word, "%v is not a number", n)
		}
		words[word] = f
	}
	return words
}

func (v *value) parseNone(given any, fault func(string, string, ...any)) {
	list, ok := given.([]any)
	if !ok {
		list = []any{given}
	}
	v.none = map[string]bool{}
	for _, entry := range list {
		if n, ok := number(entry); ok {
			v.numbers = append(v.numbers, n)
		} else if s, ok := entry.(string); ok {
			v.none[s] = true
		} else {
			fault("none", "%v is not a number or a word", entry)
		}
	}
}

func number(given any) (float64, bool) {
	switch n := given.(type) {
	case float64:
		return n, telemetry.Finite(n)
	case int:
		return float64(n), true
	}
	return 0, false
}

func constant(given any) *telemetry.Value {
	if n, ok := number(given); ok {
		return &telemetry.Value{Number: n}
	}
	switch given := given.(type) {
	case bool:
		if given {
			return &telemetry.Value{Number: 1}
		}
		return &telemetry.Value{}
	case string:
		if given != "" && len(given) <= telemetry.MaxTextBytes {
			return &telemetry.Value{Text: given}
		}
	}
	return nil
}

// read makes the value of what the payload has; there is false when it has
// nothing, and the detail says why what is there cannot be used.
func (v *value) read(s *scope) (out telemetry.Value, there bool, detail string) {
	if v.fixed != nil {
		return *v.fixed, true, ""
	}
	found := s.whole // raw
	for _, p := range v.paths {
		if found = p.find(s); found.Exists() && found.Type != gjson.Null {
			break
		}
	}
	return v.of(found)
}

// of makes the value of a JSON value.
func (v *value) of(found gjson.Result) (out telemetry.Value, there bool, detail string) {
	if !found.Exists() || found.Type == gjson.Null || found.Type == gjson.String && found.Str == "" || v.none[found.String()] {
		return out, false, ""
	}
	if v.words != nil {
		n, ok := v.words[found.String()]
		if !ok {
			return out, false, fmt.Sprintf("%.100q is not one of its words", found.String())
		}
		out.Number = n
		return out, true, ""
	}
	switch found.Type {
	case gjson.True:
		out.Number = 1
	case gjson.False:
	case gjson.Number:
		if v.as == "word" {
			out.Text = found.Raw
			return out, true, ""
		}
		if out.Number, detail = numeral(found.Raw); detail != "" {
			return out, false, detail
		}
	case gjson.String:
		if v.as != "number" && !v.scaled {
			if len(found.Str) > telemetry.MaxTextBytes {
				return out, false, fmt.Sprintf("the word has %d bytes; at most %d", len(found.Str), telemetry.MaxTextBytes)
			}
			out.Text = strings.Clone(found.Str)
			return out, true, ""
		}
		if out.Number, detail = numeral(strings.TrimSpace(found.Str)); detail != "" {
			return out, false, detail
		}
	default:
		return out, false, "it is an object or an array"
	}
	for _, n := range v.numbers {
		if out.Number == n {
			return out, false, ""
		}
	}
	if v.scaled {
		out.Number = out.Number*v.scale + v.offset
	}
	if !telemetry.Finite(out.Number) {
		return out, false, "it is beyond the range of a float64"
	}
	return out, true, ""
}

// numeral reads a number as JSON writes it.
func numeral(text string) (float64, string) {
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || !telemetry.Finite(n) || strings.ContainsAny(text, "xX_pPnN"):
		return 0, fmt.Sprintf("%.100q is not a finite number", text)
	case (n > telemetry.MaxInteger || n < -telemetry.MaxInteger) && !strings.ContainsAny(text, ".eE"):
		return 0, fmt.Sprintf("%.40s is an integer beyond 2^53", text)
	}
	return n, ""
}
