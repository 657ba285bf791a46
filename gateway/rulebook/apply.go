package rulebook

import (
	"maps"
	"slices"
)

// Origins of a file's text.
const (
	FromConfiguration = "configuration"
	FromPage          = "page"
)

// A Merged is a rule file as it is in force.
type Merged struct {
	Name   string
	Text   string
	Origin string

	// Conflict says that both the page and the configuration have changed the file
	// since one was made of the other. The page's text stays in force; Theirs is
	// the configuration's, "" when the file is gone.
	Conflict bool
	Theirs   string

	// Same says that the configuration's file has come to say what the page's text
	// says: it was exported and taken over.
	Same bool
}

// A Text is a file of the configuration.
type Text struct{ Name, Text string }

// Apply puts the texts of version v in the place of the configuration's files. A
// file that was changed at run time has the page's text while the configuration's
// is what that was made of, and the configuration's when both are the same (it
// was exported and taken over). Files that only the page has come last. Texts of a
// version that is not committed yet are given.
func (b *Book) Apply(v Version, files []Text, given ...string) ([]Merged, error) {
	known := map[string]string{}
	for _, text := range given {
		known[Sum(text)] = text
	}
	textOf := func(sum string) (string, error) {
		if text, ok := known[sum]; ok {
			return text, nil
		}
		return b.Text(sum)
	}
	out := make([]Merged, 0, len(files))
	rest := maps.Clone(v.Files)
	for _, f := range files {
		own, changed := rest[f.Name]
		delete(rest, f.Name)
		m := Merged{Name: f.Name, Text: f.Text, Origin: FromConfiguration}
		sum := Sum(f.Text)
		m.Same = changed && own.Text == sum
		if changed && !m.Same {
			text, err := textOf(own.Text)
			if err != nil {
				return nil, err
			}
			m.Text, m.Origin = text, FromPage
			if own.Base != sum {
				m.Conflict, m.Theirs = true, f.Text
			}
		}
		out = append(out, m)
	}
	for _, name := range slices.Sorted(maps.Keys(rest)) {
		own := rest[name]
		if own.Text == "" && own.Base == "" {
			continue
		}
		text, err := textOf(own.Text)
		if err != nil {
			return nil, err
		}
		out = append(out, Merged{Name: name, Text: text, Origin: FromPage, Conflict: own.Base != ""})
	}
	return out, nil
}
