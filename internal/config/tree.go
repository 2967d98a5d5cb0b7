package config

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

// value is a TOML value and the line it is on. Tables are values too.
type value struct {
	line  int
	kind  unstable.Kind // String, Integer, Bool …; Array; Table for every sort of table
	text  string        // of scalars: strings decoded, others as written
	items []*value      // Array

	// Table:
	keys    []string // in the order of the file
	entries map[string]*value
	headed  bool // has had its [header]
	closed  bool // written inline or as a plain array: nothing can be added
}

func newTable(line int) *value {
	return &value{line: line, kind: unstable.Table, entries: make(map[string]*value)}
}

func (v *value) put(key string, entry *value) {
	v.keys = append(v.keys, key)
	v.entries[key] = entry
}

// tree is the file as it was written. Its methods keep to TOML's rules on what may be defined where and how often
// (toml.io/en/v1.0.0, "Table" and "Array of Tables"), which the parser below does not know.
type tree struct {
	parser   unstable.Parser
	newlines []int // offsets
	root     *value
	at       *value // the table that key = value lines go to; nil after a header that was wrong
	section  string // its name, for problems
	report   func(line int, key, text string)
}

// parseTree reads the whole file. Each problem is reported; a syntax error ends it (ok is false), as nothing after it means
// anything sure.
func parseTree(data []byte, report func(line int, key, text string)) (root *value, ok bool) {
	t := &tree{root: newTable(1), report: report}
	t.at = t.root
	for i, c := range data {
		if c == '\n' {
			t.newlines = append(t.newlines, i)
		}
	}
	t.parser.Reset(data)
	for t.parser.NextExpression() {
		n := t.parser.Expression()
		switch n.Kind {
		case unstable.KeyValue:
			if t.at != nil {
				t.keyValue(t.at, t.section, n)
			}
		case unstable.Table:
			t.header(n, false)
		case unstable.ArrayTable:
			t.header(n, true)
		}
	}
	if err := t.parser.Error(); err != nil {
		line := len(t.newlines) + 1
		var pe *unstable.ParserError
		if errors.As(err, &pe) && pe.Highlight != nil {
			line = t.line(t.parser.Range(pe.Highlight))
		}
		report(line, "", "not TOML: "+err.Error())
		return t.root, false
	}
	return t.root, true
}

func (t *tree) line(r unstable.Range) int {
	return 1 + sort.SearchInts(t.newlines, int(r.Offset))
}

// path reads a dotted key.
func (t *tree) path(it unstable.Iterator) (path []string, line int) {
	for it.Next() {
		n := it.Node()
		if path == nil {
			line = t.line(n.Raw)
		}
		path = append(path, string(n.Data))
	}
	return path, line
}

// header moves to the table of a [header] or [[header]].
func (t *tree) header(n *unstable.Node, array bool) {
	path, line := t.path(n.Key())
	t.section = strings.Join(path, ".")
	t.at = nil
	parent := t.root
	for _, key := range path[:len(path)-1] {
		if parent = t.descend(parent, key, line); parent == nil {
			t.report(line, t.section, "is below something that is not a table: name the table another way")
			return
		}
	}
	last := path[len(path)-1]
	have := parent.entries[last]
	switch {
	case array:
		t.element(parent, last, line)
	case have == nil:
		t.at = newTable(line)
		t.at.headed = true
		parent.put(last, t.at)
	case have.kind != unstable.Table || have.closed || have.headed:
		t.report(line, t.section, fmt.Sprintf("is there already, on line %d: write everything of it in one place", have.line))
	default: // was only implied by [table.below]
		have.headed = true
		t.at = have
	}
}

// element begins another table of an array of tables.
func (t *tree) element(parent *value, key string, line int) {
	have := parent.entries[key]
	if have == nil {
		have = &value{line: line, kind: unstable.Array}
		parent.put(key, have)
	}
	if have.kind != unstable.Array || have.closed {
		t.report(line, t.section, fmt.Sprintf("is there already, on line %d, as something else than [[%s]]", have.line, t.section))
		return
	}
	t.at = newTable(line)
	t.at.headed = true
	have.items = append(have.items, t.at)
}

// descend steps into a table on the way to another, making it if need be; nil if it is none.
func (t *tree) descend(v *value, key string, line int) *value {
	have := v.entries[key]
	if have == nil {
		have = newTable(line)
		v.put(key, have)
	}
	if have.kind == unstable.Array && !have.closed && len(have.items) > 0 {
		have = have.items[len(have.items)-1]
	}
	if have.kind != unstable.Table || have.closed {
		return nil
	}
	return have
}

func (t *tree) keyValue(table *value, section string, n *unstable.Node) {
	path, line := t.path(n.Key())
	name := strings.Join(path, ".")
	if section != "" {
		name = section + "." + name
	}
	for _, key := range path[:len(path)-1] {
		next := t.descend(table, key, line)
		if next == nil {
			t.report(line, name, "is below something that is not a table: name the key another way")
			return
		}
		table = next
	}
	last := path[len(path)-1]
	if have := table.entries[last]; have != nil {
		t.report(line, name, fmt.Sprintf("is there already, on line %d: remove one of the two", have.line))
		return
	}
	table.put(last, t.value(n.Value(), line, name))
}

func (t *tree) value(n *unstable.Node, line int, name string) *value {
	v := &value{kind: n.Kind, line: line, text: string(n.Data)}
	if n.Raw.Length > 0 { // arrays have none; the line of their key does
		v.line = t.line(n.Raw)
	}
	switch n.Kind {
	case unstable.Array:
		v.closed = true
		for it := n.Children(); it.Next(); {
			v.items = append(v.items, t.value(it.Node(), v.line, name))
		}
	case unstable.InlineTable:
		table := newTable(v.line)
		for it := n.Children(); it.Next(); {
			t.keyValue(table, name, it.Node())
		}
		table.closed = true
		return table
	}
	return v
}
