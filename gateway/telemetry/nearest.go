package telemetry

import (
	"math"
	"slices"
	"unicode/utf8"
)

// Nearest returns the name that differs least from what was written, if it is
// near enough to be meant: by a third of its letters at most. Else it is "".
func Nearest(written string, names []string) string {
	best, distance := "", math.MaxInt
	for _, name := range slices.Sorted(slices.Values(names)) {
		longer := max(utf8.RuneCountInString(written), utf8.RuneCountInString(name))
		if d := editDistance(written, name); d < distance && d <= longer/3 {
			best, distance = name, d
		}
	}
	return best
}

// DidYouMean returns ": did you mean x?" for the nearest name, or "".
func DidYouMean(written string, names []string) string {
	best := Nearest(written, names)
	if best == "" {
		return ""
	}
	return ": did you mean " + best + "?"
}

// editDistance counts the letters to change, add, drop or swap with their
// neighbour that make b of a.
func editDistance(a, b string) int {
	x, y := []rune(a), []rune(b)
	if len(x)+len(y) > 256 {
		return math.MaxInt
	}
	rows := make([][]int, len(x)+1)
	for i := range rows {
		rows[i] = make([]int, len(y)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(x); i++ {
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			d := min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				d = min(d, rows[i-2][j-2]+1)
			}
			rows[i][j] = d
		}
	}
	return rows[len(x)][len(y)]
}
