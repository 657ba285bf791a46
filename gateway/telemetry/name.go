package telemetry

import (
	"unicode"
	"unicode/utf8"
)

// MaxNameRunes bounds the names of devices, kinds, values, sites and rules.
const MaxNameRunes = 128

// ValidName reports whether s can name a device, a kind, a site, a rule or a
// value: [\p{L}\p{N}][\p{L}\p{N}._:-]{0,127}. Such a name needs no escaping in
// line protocol, in an MQTT topic, in a path or in an expression's string.
func ValidName(s string) bool {
	if len(s) == 0 || len(s) > MaxNameRunes*utf8.UTFMax {
		return false
	}
	runes := 0
	for i, c := range s {
		runes++
		switch {
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 'A' && c <= 'Z':
		case i > 0 && (c == '.' || c == '_' || c == ':' || c == '-'):
		case c < utf8.RuneSelf:
			return false
		case c == utf8.RuneError, !unicode.IsLetter(c) && !unicode.IsNumber(c):
			return false
		}
	}
	return runes <= MaxNameRunes
}

// Reserved reports whether a value or an extra tag may not have this name,
// because the gateway writes it itself.
func Reserved(name string) bool {
	switch name {
	case "time", "device", "site", "quality", "delay_s":
		return true
	}
	return false
}
