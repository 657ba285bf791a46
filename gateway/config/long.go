package config

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"go.yaml.in/yaml/v3"
)

// longBytes is from how many bytes on a list is read in pieces.
const longBytes = 256 << 10

// pieceBytes is how long a piece is, at least. The nodes of a YAML text take thirty
// times its bytes: a registry of a hundred thousand devices would need 500 MB of them.
const pieceBytes = 128 << 10

// A longList is a text that is one block list under one key, as a large devices.yaml
// is, cut into pieces before items of the list. A piece is YAML by itself.
type longList struct {
	key    string
	line   int // of the key
	pieces []piece
}

type piece struct {
	from, to int // bytes of the text
	line     int // of its first, from 1
	first    int // index of its first item
	items    int
}

// MaxListBytes bounds a text that is one list and can be read in pieces: some 400,000
// devices. maxListValues bounds its values.
const (
	MaxListBytes  = 4 * MaxBytes
	maxListValues = 4 * maxValues
)

// Read parses a document and decodes it into target, as Parse and Decode do, but keeps
// no nodes of a long list, reads it on several cores, and takes MaxListBytes of it. The
// faults are the same.
func Read(name string, text []byte, target any) (*Document, Faults) {
	return read(name, text, target, bounds{long: longBytes, piece: pieceBytes, whole: MaxBytes, list: MaxListBytes})
}

// bounds are constants that tests make small: from where on a text is long, how long a
// piece is at least, and what a document and a list may have.
type bounds struct{ long, piece, whole, list int }

func read(name string, text []byte, target any, in bounds) (*Document, Faults) {
	if len(text) >= in.long && len(text) <= in.list {
		if list := cut(text, in.piece); list != nil {
			d := &Document{Name: name, text: string(text), long: list}
			if faults, ok := d.decodeList(target); ok {
				return d, faults
			}
			if faults := d.broken(); len(text) > in.whole && len(faults) > 0 {
				return nil, faults
			}
		}
	}
	d, err := parse(name, text, in.whole)
	if err != nil {
		faults, _ := err.(Faults) // it is nothing else
		return nil, faults
	}
	return d, d.Decode(target)
}

var loneKey = regexp.MustCompile(`^([a-z_]+):(?:[ \t]+#.*)?[ \t]*$`)

// cut finds the pieces of a text; nil when it is anything but one block list under one
// key. What begins like an item may lie within quotes, or use an anchor of another
// piece: then a piece is no YAML by itself.
func cut(text []byte, each int) *longList {
	for _, odd := range []string{"\u0085", "\u2028", "\u2029"} {
		if bytes.Contains(text, []byte(odd)) {
			return nil // YAML ends a line there
		}
	}
	if bytes.Count(text, []byte("\r")) != bytes.Count(text, []byte("\r\n")) {
		return nil // there too
	}
	list := &longList{}
	dash := 0             // letters up to and with the - of an item; 0: none was seen
	begin, at := -1, 0    // of the piece, and of the line
	top := 0              // length of what comes before the items
	number, items := 0, 0 // of the line, and in all
	end := func() {
		if begin >= 0 {
			last := &list.pieces[len(list.pieces)-1]
			last.from, last.to, last.items = begin, at, items-last.first
		}
	}
	for line := range bytes.Lines(text) {
		number++
		words := bytes.TrimLeft(bytes.TrimRight(line, "\r\n"), " ")
		indent := len(bytes.TrimRight(line, "\r\n")) - len(words)
		switch {
		case len(words) == 0 || words[0] == '#':
		case list.key == "":
			m := loneKey.FindSubmatch(bytes.TrimRight(line, "\r\n"))
			if m == nil {
				return nil
			}
			list.key, list.line = string(m[1]), number
		case words[0] == '-' && (len(words) == 1 || words[1] == ' ') && (dash == 0 || dash == indent+1):
			dash = indent + 1
			if begin < 0 {
				top = at
			}
			if begin < 0 || at-begin >= each {
				end()
				begin = at
				list.pieces = append(list.pieces, piece{line: number, first: items})
			}
			items++
		case dash == 0 || indent < dash:
			return nil // another key, a document's end, or something odd
		}
		at += len(line)
	}
	if end(); items == 0 {
		return nil
	}
	var head map[string]any
	if yaml.Unmarshal(text[:top], &head) != nil || len(head) != 1 {
		return nil
	}
	return list
}

// parse reads one piece: the nodes of its items, with their lines in the text.
func (p *piece) parse(text string) ([]*yaml.Node, error) {
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text[p.from:p.to]), &node); err != nil {
		return nil, err
	}
	if node.Kind != yaml.DocumentNode || node.Content[0].Kind != yaml.SequenceNode || len(node.Content[0].Content) != p.items {
		return nil, errors.New("yaml: not a list of items that begin alike")
	}
	shift(node.Content[0], p.line-1)
	return node.Content[0].Content, nil
}

// broken says what is wrong with the first piece that is no YAML.
func (d *Document) broken() Faults {
	for i := range d.long.pieces {
		if _, err := d.long.pieces[i].parse(d.text); err != nil {
			f := syntaxFault(d.Name, err)
			f.Line = max(f.Line, 1) + d.long.pieces[i].line - 1
			return Faults{f}
		}
	}
	return nil
}

// shift moves a node and what is in it down by some lines. What an alias stands for is
// elsewhere in the tree.
func shift(n *yaml.Node, lines int) {
	n.Line += lines
	for _, c := range n.Content {
		shift(c, lines)
	}
}

// decodeList decodes the pieces. ok is false when they are not what they seemed to be,
// or target has no such list: then nothing is known.
func (d *Document) decodeList(target any) (faults Faults, ok bool) {
	v := reflect.ValueOf(target).Elem()
	at, known := fieldsOf(v.Type())[d.long.key]
	if !known || v.FieldByIndex(at).Kind() != reflect.Slice {
		return nil, false
	}
	field := v.FieldByIndex(at)
	pieces := d.long.pieces
	last := pieces[len(pieces)-1]
	list := reflect.MakeSlice(field.Type(), last.first+last.items, last.first+last.items)
	decoders := make([]decoder, len(pieces))
	sound := make([]bool, len(pieces))
	var next, values atomic.Int64
	var working sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(pieces)) {
		working.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(pieces); i = int(next.Add(1)) - 1 {
				decoders[i] = decoder{file: d.Name, depth: 2} // of the list in the document
				sound[i] = pieces[i].decode(d.text, &decoders[i], d.long.key, list) && values.Add(int64(decoders[i].values)) < maxListValues
				if !sound[i] {
					return
				}
			}
		})
	}
	working.Wait()
	for i := range decoders {
		if !sound[i] {
			return nil, false // what is wrong is told by reading it as a whole
		}
		faults = append(faults, decoders[i].faults...)
	}
	field.Set(list)
	return faults, true
}

func (p *piece) decode(text string, with *decoder, key string, list reflect.Value) bool {
	nodes, err := p.parse(text)
	if err != nil {
		return false
	}
	for i, n := range nodes {
		with.value(n, list.Index(p.first+i), fmt.Sprintf("%s[%d]", key, p.first+i))
	}
	return true
}

// find returns the node of the item that a path leads into, and the rest of the path;
// nil when it leads elsewhere.
func (l *longList) find(text string, parts []string) (*yaml.Node, []string) {
	if len(parts) < 2 || parts[0] != l.key {
		return nil, nil
	}
	index, err := strconv.Atoi(strings.Trim(parts[1], "[]"))
	if err != nil {
		return nil, nil
	}
	at := sort.Search(len(l.pieces), func(i int) bool { return l.pieces[i].first > index }) - 1
	if at < 0 || index-l.pieces[at].first >= l.pieces[at].items {
		return nil, nil
	}
	nodes, _ := l.pieces[at].parse(text) // it was parsed before
	return nodes[index-l.pieces[at].first], parts[2:]
}
