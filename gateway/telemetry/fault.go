package telemetry

import "fmt"

// A Fault is one thing wrong in a configuration: where, and what was expected.
type Fault struct {
	// Path leads to the place from the top of the document, as in
	// modbus[2].units[0].id. The gateway adds file and line.
	Path string
	// Want says what is wrong and what was expected, as in
	// "unit id 300 is not in 1..247".
	Want string
	// From and To are the letters of the text at Path that are at fault, counted
	// from 0, To not included. To 0: the whole of it.
	From, To int
}

// Faultf makes a Fault.
func Faultf(path, format string, args ...any) Fault {
	return Fault{Path: path, Want: fmt.Sprintf(format, args...)}
}

// String returns path and want in one line.
func (f Fault) String() string {
	if f.Path == "" {
		return f.Want
	}
	return f.Path + ": " + f.Want
}

// Under returns the faults with prefix set before each path.
func Under(prefix string, faults []Fault) []Fault {
	out := make([]Fault, len(faults))
	for i, f := range faults {
		switch {
		case f.Path == "":
			f.Path = prefix
		case prefix != "" && f.Path[0] != '[':
			f.Path = prefix + "." + f.Path
		default:
			f.Path = prefix + f.Path
		}
		out[i] = f
	}
	return out
}
