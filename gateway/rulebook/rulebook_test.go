package rulebook

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, dir string) *Book {
	t.Helper()
	b, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// put commits a text of a file that was made of base.
func put(t *testing.T, b *Book, name, text, base string) Version {
	t.Helper()
	head := b.Head()
	files := maps.Clone(head.Files)
	if files == nil {
		files = map[string]File{}
	}
	files[name] = File{Text: Sum(text), Base: Sum(base)}
	v, err := b.Commit(head.N, Version{By: "Lan", Why: "thử", Do: Edit, At: time.Unix(1_700_000_000, 0), Changed: []string{name}, Files: files}, text, base)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestVersions(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	if head := b.Head(); head.N != 0 || len(b.Versions("", 10)) != 0 {
		t.Fatalf("a new book has %+v", head)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Error("opening a book has written something")
	}
	put(t, b, "a.yaml", "one", "base")
	put(t, b, "b.yaml", "two", "")
	put(t, b, "a.yaml", "three", "base")
	_, err := b.Commit(1, Version{By: "Minh"})
	conflict, ok := errors.AsType[*Conflict](err)
	if !ok || conflict.Now.N != 3 || conflict.Seen.N != 1 || !strings.Contains(err.Error(), "Lan") {
		t.Errorf("who did not see the newest gets %v", err)
	}
	for _, b := range []*Book{b, open(t, dir)} { // what is there outlives the program
		if head := b.Head(); head.N != 3 || len(head.Files) != 2 || head.By != "Lan" || head.Why != "thử" {
			t.Errorf("head %+v", head)
		}
		if list := b.Versions("a.yaml", 10); len(list) != 2 || list[0].N != 3 || list[1].N != 1 {
			t.Errorf("of a.yaml: %+v", list)
		}
		if text, err := b.Text(b.Head().Files["a.yaml"].Text); err != nil || text != "three" {
			t.Errorf("text %q, %v", text, err)
		}
		if v := b.Last(b.Head(), "b.yaml"); v.N != 2 {
			t.Errorf("b.yaml is of version %d", v.N)
		}
		if _, err := b.Version(4); !errors.Is(err, ErrNoVersion) {
			t.Errorf("version 4: %v", err)
		}
	}
	if _, err := b.Commit(3, Version{}, strings.Repeat("x", MaxText+1)); err == nil || b.Head().N != 3 {
		t.Errorf("a text that is too long: %v", err)
	}
}

// TestCut cuts the log after every byte of its last line: the versions before it
// are there, and the next one can be written.
func TestCut(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a.yaml", "one", "")
	before, err := os.ReadFile(b.log())
	if err != nil {
		t.Fatal(err)
	}
	put(t, b, "a.yaml", "two", "")
	whole, err := os.ReadFile(b.log())
	if err != nil {
		t.Fatal(err)
	}
	for size := len(before); size < len(whole); size++ {
		if err := os.WriteFile(b.log(), whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		cut := open(t, dir)
		if cut.Head().N != 1 {
			t.Fatalf("cut at %d: version %d", size, cut.Head().N)
		}
		if size%37 == 0 {
			put(t, cut, "a.yaml", "three", "")
			if again := open(t, dir); again.Head().N != 2 {
				t.Fatalf("cut at %d and written: version %d", size, again.Head().N)
			}
		}
	}
}

// TestDamage turns a bit of each byte: whatever is told, it is never another
// version than was written.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	b := open(t, dir)
	put(t, b, "a.yaml", "one", "")
	put(t, b, "a.yaml", "two", "")
	whole, err := os.ReadFile(b.log())
	if err != nil {
		t.Fatal(err)
	}
	refused := 0
	for i := range whole {
		damaged := append([]byte(nil), whole...)
		damaged[i] ^= 1
		if err := os.WriteFile(b.log(), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		other, err := Open(dir)
		if err != nil {
			refused++
			if !strings.Contains(err.Error(), "history.jsonl:") {
				t.Fatalf("byte %d: %v", i, err)
			}
			continue
		}
		if n := other.Head().N; n != 1 { // the end of the last line is gone: as cut
			t.Errorf("byte %d: version %d", i, n)
		}
	}
	if refused < len(whole)-2 {
		t.Errorf("%d of %d damages were seen", refused, len(whole))
	}
	sum := Sum("one")
	if err := os.WriteFile(b.file(sum), []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Text(sum); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a damaged text: %v", err)
	}
}

func TestApply(t *testing.T) {
	b := open(t, t.TempDir())
	put(t, b, "same.yaml", "page", "old")
	put(t, b, "edited.yaml", "page", "old")
	put(t, b, "both.yaml", "page", "old")
	put(t, b, "gone.yaml", "page", "old")
	put(t, b, "new.yaml", "page", "")
	head := b.Head()
	f := head.Files["new.yaml"]
	f.Base = ""
	head.Files["new.yaml"] = f
	got, err := b.Apply(head, []Text{{"untouched.yaml", "old"}, {"same.yaml", "page"}, {"edited.yaml", "old"}, {"both.yaml", "newer"}})
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, m := range got {
		said = append(said, fmt.Sprintf("%s %s %s conflict=%t same=%t theirs=%s", m.Name, m.Text, m.Origin, m.Conflict, m.Same, m.Theirs))
	}
	want := `untouched.yaml old configuration conflict=false same=false theirs=
same.yaml page configuration conflict=false same=true theirs=
edited.yaml page page conflict=false same=false theirs=
both.yaml page page conflict=true same=false theirs=newer
gone.yaml page page conflict=true same=false theirs=
new.yaml page page conflict=false same=false theirs=`
	if strings.Join(said, "\n") != want {
		t.Errorf("applied:\n%s\nwant:\n%s", strings.Join(said, "\n"), want)
	}
}

func TestDiff(t *testing.T) {
	for _, c := range []struct{ before, after, want string }{
		{"a\nb\nc\n", "a\nx\nc\n", " a|-b|+x| c"},
		{"", "a\n", "+a"},
		{"a\n", "", "-a"},
		{"a\nb\nc\nd\n", "b\nc\nd\ne\n", "-a| b| c| d|+e"},
		{"same\n", "same\n", " same"},
	} {
		var got []string
		for _, l := range Diff(c.before, c.after) {
			got = append(got, l.Mark+l.Text)
		}
		if strings.Join(got, "|") != c.want {
			t.Errorf("%q to %q: %s, want %s", c.before, c.after, strings.Join(got, "|"), c.want)
		}
	}
	long := strings.Repeat("x\n", 50)
	lines := Around(Diff(long+"a\n"+long, long+"b\n"+long), 2)
	if len(lines) != 7 || lines[0].Mark != "@" || lines[3].Mark != "-" || lines[4].Mark != "+" {
		t.Errorf("around a change: %+v", lines)
	}
	var many strings.Builder
	for i := range 5000 {
		fmt.Fprintln(&many, i)
	}
	if got := len(Diff(many.String(), strings.ReplaceAll(many.String(), "\n", "!\n"))); got != 10_000 {
		t.Errorf("two texts that are too long to be compared have %d lines", got)
	}
}

func TestMark(t *testing.T) {
	const file = `# why
rules:
  # of Kim Long
  - name: a # the first
    on: river
    shadow: true   # until Monday
    when: level_m > 1
  - {name: b, on: river, when: level_m > 2}
  - on: river
    disabled: false
    name: "c"
`
	for _, c := range []struct {
		rule, key  string
		value      bool
		old, fresh string // what is changed; both "": an error
	}{
		{"a", "shadow", false, "shadow: true   # until Monday", "shadow: false   # until Monday"},
		{"a", "disabled", true, "  - name: a # the first\n", "  - name: a # the first\n    disabled: true\n"},
		{"a", "disabled", false, "x", "x"},
		{"b", "shadow", true, "{name: b,", "{shadow: true, name: b,"},
		{"c", "disabled", true, "disabled: false", "disabled: true"},
		{"c", "disabled", false, "    disabled: false\n", ""},
		{"d", "shadow", true, "", ""},
	} {
		got, err := Mark(file, c.rule, c.key, c.value)
		if c.old == "" {
			if err == nil {
				t.Errorf("%s: no error", c.rule)
			}
			continue
		}
		if want := strings.Replace(file, c.old, c.fresh, 1); got != want || err != nil {
			t.Errorf("%s %s %t: %v\n%s", c.rule, c.key, c.value, err, got)
		}
	}
	alone, err := Mark("rules:\n  - name: a\n    shadow: true\n    on: x\n", "a", "shadow", false)
	if alone != "rules:\n  - name: a\n    on: x\n" || err != nil {
		t.Errorf("%q %v", alone, err)
	}
	if last, err := Mark("rules: [{on: x, name: a}]", "a", "shadow", true); err != nil || !strings.Contains(last, "shadow: true") {
		t.Errorf("%q %v", last, err)
	}
}

// FuzzMark wants that marking a rule changes nothing else, or is refused.
func FuzzMark(f *testing.F) {
	f.Add("rules:\n  - name: a\n    on: x # c\n", true)
	f.Add("rules: [{name: a, shadow: yes}]", false)
	f.Add("rules:\n- {\n  name: a,\n  shadow: true}\n", false)
	f.Fuzz(func(t *testing.T, text string, value bool) {
		got, err := Mark(text, "a", "shadow", value)
		if err != nil {
			return
		}
		again, err := Mark(got, "a", "shadow", value)
		if err != nil || again != got {
			t.Errorf("%q was marked to %q and then to %q: %v", text, got, again, err)
		}
	})
}

// TestUnwritable wants an error, and no version, when the disk refuses.
func TestUnwritable(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rules"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b := &Book{dir: filepath.Join(dir, "rules")}
	if _, err := b.Commit(0, Version{}, "x"); err == nil || b.Head().N != 0 {
		t.Errorf("committed to a file: %v", err)
	}
}
