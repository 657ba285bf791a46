package rulebook

import "strings"

// A Line is one line of a comparison: Mark is ' ' for both, '-' for the old text
// only, '+' for the new one only. Old and New are its numbers from 1, 0 where it
// is not.
type Line struct {
	Mark     string `json:"mark"`
	Old, New int    `json:"-"`
	Text     string `json:"text"`
}

// maxCompared bounds the work of a comparison: lines of one text times lines of
// the other, after what they have in common at both ends.
const maxCompared = 4_000_000

// Diff compares two texts line by line by their longest common subsequence. Texts
// that have too little in common to be compared are told as a whole.
func Diff(before, after string) []Line {
	a, b := split(before), split(after)
	head := 0
	for head < len(a) && head < len(b) && a[head] == b[head] {
		head++
	}
	tail := 0
	for tail < len(a)-head && tail < len(b)-head && a[len(a)-1-tail] == b[len(b)-1-tail] {
		tail++
	}
	var out []Line
	add := func(mark string, i, j int, text string) { out = append(out, Line{mark, i + 1, j + 1, text}) }
	for i := range head {
		add(" ", i, i, a[i])
	}
	x, y := a[head:len(a)-tail], b[head:len(b)-tail]
	common := lengths(x, y)
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		switch {
		case i < len(x) && j < len(y) && x[i] == y[j]:
			add(" ", head+i, head+j, x[i])
			i, j = i+1, j+1
		case j == len(y) || i < len(x) && (common == nil || common[i+1][j] >= common[i][j+1]):
			add("-", head+i, -1, x[i])
			i++
		default:
			add("+", -1, head+j, y[j])
			j++
		}
	}
	for k := range tail {
		add(" ", len(a)-tail+k, len(b)-tail+k, a[len(a)-tail+k])
	}
	return out
}

func split(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// lengths returns how many lines x[i:] and y[j:] have in common, nil when that is
// too much work.
func lengths(x, y []string) [][]int32 {
	if len(x)*len(y) > maxCompared {
		return nil
	}
	table := make([][]int32, len(x)+1)
	for i := range table {
		table[i] = make([]int32, len(y)+1)
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				table[i][j] = table[i+1][j+1] + 1
			} else {
				table[i][j] = max(table[i+1][j], table[i][j+1])
			}
		}
	}
	return table
}

// Around returns the lines that differ with so many lines of both texts around
// each; a Line with the mark "@" stands for what is left out.
func Around(lines []Line, context int) []Line {
	near := make([]bool, len(lines))
	for i, l := range lines {
		if l.Mark == " " {
			continue
		}
		for k := max(0, i-context); k <= min(len(lines)-1, i+context); k++ {
			near[k] = true
		}
	}
	var out []Line
	for i, l := range lines {
		switch {
		case near[i]:
			out = append(out, l)
		case len(out) == 0 || out[len(out)-1].Mark != "@":
			out = append(out, Line{Mark: "@"})
		}
	}
	if len(out) > 0 && out[len(out)-1].Mark == "@" {
		out = out[:len(out)-1]
	}
	return out
}
