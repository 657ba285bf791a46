package ioc

import (
	"strconv"
	"strings"

	"haidang/gateway/telemetry"
)

// Measurement is the InfluxDB measurement of warnings.
const Measurement = "warning"

// Escapes of InfluxDB line protocol, version 1: tag values and string fields.
// A line break in a tag has no escape and becomes a space.
const (
	tagEscapes   = ",= \\\n"
	fieldEscapes = "\"\\"
)

// Line appends the InfluxDB line of a transition to dst, with a newline at its
// end:
//
//	warning,device=kim-long,rule=flood-alarm,site=kim-long age_s=12,id="kim-long-flood-3f9a",n=2,severity=3,state="active" 1761546600000000002
//
// All numbers are floats. age_s is how long before the transition the warning was
// raised: of an acknowledgement, how long nobody took it. severity is 0 when the warning is cleared, so that a
// graph falls back; its last severity is in the point before. The time is At
// plus n nanoseconds: a clear and a new raise at one instant stay two points,
// and the same transition written again is the same point.
func Line(dst []byte, w *telemetry.Warning) []byte {
	site := w.Site
	if site == "" {
		site = w.Device // a site is by default its device; an empty tag is refused
	}
	severity := w.Severity
	if w.State == telemetry.Cleared {
		severity = telemetry.NoSeverity
	}
	dst = append(dst, Measurement+",device="...)
	dst = appendTag(dst, w.Device)
	dst = append(dst, ",rule="...)
	dst = appendTag(dst, w.Rule)
	dst = append(dst, ",site="...)
	dst = appendTag(dst, site)
	dst = append(dst, ' ')
	if age := w.At.Sub(w.Start); !w.Start.IsZero() && age >= 0 {
		dst = append(dst, `age_s=`...)
		dst = append(strconv.AppendFloat(dst, age.Seconds(), 'f', -1, 64), ',')
	}
	dst = append(dst, `id="`...)
	dst = appendString(dst, w.ID)
	dst = append(dst, `",n=`...)
	dst = strconv.AppendInt(dst, int64(w.N), 10)
	dst = append(dst, `,severity=`...)
	dst = strconv.AppendUint(dst, uint64(severity), 10)
	dst = append(dst, `,state="`...)
	dst = appendString(dst, string(w.State))
	dst = append(dst, `" `...)
	dst = strconv.AppendInt(dst, w.At.UnixNano()+int64(w.N), 10)
	return append(dst, '\n')
}

func appendTag(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, tagEscapes) {
		return append(dst, s...)
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', '=', ' ':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', ' ')
		case '\\':
			dst = append(dst, '/') // a backslash before a separator cannot be written
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

func appendString(dst []byte, s string) []byte {
	if !strings.ContainsAny(s, fieldEscapes) {
		return append(dst, s...)
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, s[i])
	}
	return dst
}
