package config

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// place is where the keys of one decoded struct stand: "" is the struct itself, "imap" a key, "imap.1" an item of its list.
type place map[string]int

// decoder fills the Config from the tree. What it cannot take it reports and leaves at its default.
type decoder struct {
	report func(line int, key, text string)
	places map[any]place // by pointer to the struct
}

// table fills a struct from a table.
func (d *decoder) table(v *value, section string, into reflect.Value) {
	at := place{"": v.line}
	d.places[into.Addr().Interface()] = at
	for _, key := range v.keys {
		entry := v.entries[key]
		name := key
		if section != "" {
			name = section + "." + key
		}
		field, ok := fieldOf(into.Type(), key)
		if !ok {
			d.report(entry.line, name, unknown(key, into.Type()))
			continue
		}
		at[key] = entry.line
		for i, item := range entry.items {
			at[fmt.Sprintf("%s.%d", key, i)] = item.line
		}
		d.value(entry, name, into.FieldByIndex(field.Index))
	}
}

func fieldOf(t reflect.Type, key string) (reflect.StructField, bool) {
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("toml") == key {
			return t.Field(i), true
		}
	}
	return reflect.StructField{}, false
}

// value fills one field, by its type.
func (d *decoder) value(v *value, name string, into reflect.Value) {
	var why string
	switch p := into.Addr().Interface().(type) {
	case *string:
		if v.kind != unstable.String {
			why = "write a string in quotes"
		} else {
			*p = v.text
		}
	case *bool:
		if v.kind != unstable.Bool {
			why = "write true or false"
		} else {
			*p = v.text == "true"
		}
	case *int:
		*p, why = wholeNumber(v, *p)
	case *Size:
		*p, why = size(v, *p)
	case *time.Duration:
		*p, why = duration(v, *p)
	case *[]string:
		d.strings(v, name, p)
		return
	case *[]netip.Prefix:
		d.prefixes(v, name, p)
		return
	default:
		d.tables(v, name, into)
		return
	}
	if why != "" {
		d.report(v.line, name, describe(v)+": "+why)
	}
}

// tables fills a struct from a [table], or a list of structs from [[tables]].
func (d *decoder) tables(v *value, name string, into reflect.Value) {
	if into.Kind() == reflect.Struct {
		if v.kind != unstable.Table {
			d.report(v.line, name, fmt.Sprintf("%s: write it as a table, [%s]", describe(v), name))
			return
		}
		d.table(v, name, into)
		return
	}
	if v.kind != unstable.Array {
		d.report(v.line, name, fmt.Sprintf("%s: there can be several, write [[%s]]", describe(v), name))
		return
	}
	// Made in one piece: places are known by pointers into it.
	into.Set(reflect.MakeSlice(into.Type(), len(v.items), len(v.items)))
	for i, item := range v.items {
		if item.kind != unstable.Table {
			d.report(item.line, name, fmt.Sprintf("%s: write each as a table, [[%s]]", describe(item), name))
			continue
		}
		element := into.Index(i)
		switch p := element.Addr().Interface().(type) {
		case *Domain:
			*p = defaultDomain()
		case *Route:
			*p = defaultRoute()
		}
		d.table(item, name, element)
	}
}

func (d *decoder) strings(v *value, name string, into *[]string) {
	if v.kind != unstable.Array {
		d.report(v.line, name, describe(v)+`: write a list of strings, ["…", "…"]`)
		return
	}
	*into = nil
	for _, item := range v.items {
		if item.kind != unstable.String {
			d.report(item.line, name, describe(item)+": the list holds strings in quotes")
			continue
		}
		*into = append(*into, item.text)
	}
}

func (d *decoder) prefixes(v *value, name string, into *[]netip.Prefix) {
	if v.kind != unstable.Array {
		d.report(v.line, name, describe(v)+`: write a list of networks, ["192.0.2.0/24", "2001:db8::/32"]`)
		return
	}
	*into = nil
	for _, item := range v.items {
		p, err := netip.ParsePrefix(item.text)
		switch {
		case item.kind != unstable.String:
			d.report(item.line, name, describe(item)+": the list holds strings in quotes")
		case err != nil:
			d.report(item.line, name, fmt.Sprintf("%.60q is no network: write an address and a prefix length, such as 192.0.2.0/24", item.text))
		case p.Masked() != p:
			d.report(item.line, name, fmt.Sprintf("%q has bits beyond its prefix length: write %s", item.text, p.Masked()))
		default:
			*into = append(*into, p)
		}
	}
}

func wholeNumber(v *value, old int) (int, string) {
	n, err := strconv.ParseInt(v.text, 0, 32)
	if v.kind != unstable.Integer || err != nil {
		return old, "write a whole number"
	}
	return int(n), ""
}

func duration(v *value, old time.Duration) (time.Duration, string) {
	const usage = `write a duration such as "90s", "5m" or "1h30m"`
	if v.kind != unstable.String {
		return old, usage
	}
	d, err := time.ParseDuration(strings.ReplaceAll(v.text, " ", ""))
	if err != nil {
		return old, usage
	}
	return d, ""
}

// sizeUnits, the longer names first.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

func size(v *value, old Size) (Size, string) {
	const usage = `write a number of bytes, or a string such as "25 MB" or "64 KiB"`
	if v.kind == unstable.Integer {
		n, err := strconv.ParseInt(v.text, 0, 64)
		if err != nil {
			return old, usage
		}
		return Size(n), ""
	}
	n, err := ParseSize(v.text)
	if v.kind != unstable.String || err != nil {
		return old, usage
	}
	return n, ""
}

// ParseSize reads a Size as people write it: "25 MB", "64 KiB", "1.5GB", "1000".
func ParseSize(text string) (Size, error) {
	number, factor := text, 1.0
	for _, u := range sizeUnits {
		if n := len(number) - len(u.name); n > 0 && strings.EqualFold(number[n:], u.name) {
			number, factor = number[:n], u.bytes
			break
		}
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || math.IsNaN(f) || math.Abs(f*factor) >= 1<<62 {
		return 0, fmt.Errorf("%.40q is no size: write it such as \"25 MB\" or \"64 KiB\"", text)
	}
	return Size(f * factor), nil
}

// describe names what was written, without telling what may be a secret.
func describe(v *value) string {
	switch v.kind {
	case unstable.String:
		return "this is a string"
	case unstable.Integer:
		return "this is a whole number"
	case unstable.Float:
		return "this is a number with a fraction"
	case unstable.Bool:
		return "this is true or false"
	case unstable.Array:
		return "this is a list"
	case unstable.Table:
		return "this is a table"
	}
	return "this is a date or time"
}

// unknown says what to write instead of a key that is not known here.
func unknown(key string, here reflect.Type) string {
	if best := closest(key, keysOf(here)); best != "" {
		return fmt.Sprintf("unknown key: did you mean %s?", best)
	}
	if homes := homesOf(key, reflect.TypeFor[Config](), ""); len(homes) > 0 {
		return "unknown key here: it belongs " + strings.Join(homes, " or ")
	}
	return "unknown key: remove it; docs/config.md has all there are"
}

func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		keys = append(keys, t.Field(i).Tag.Get("toml"))
	}
	return keys
}

// homesOf lists the tables that have such a key.
func homesOf(key string, t reflect.Type, section string) (homes []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		switch {
		case name == key && section == "":
			homes = append(homes, "at the top of the file, before any [table]")
		case name == key:
			homes = append(homes, "in "+section)
		}
		switch {
		case f.Type.Kind() == reflect.Struct:
			homes = append(homes, homesOf(key, f.Type, "["+name+"]")...)
		case f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct && f.Type.Elem() != reflect.TypeFor[netip.Prefix]():
			homes = append(homes, homesOf(key, f.Type.Elem(), "[["+name+"]]")...)
		}
	}
	return homes
}

// closest is the known word that a typing error may have come from, or "".
func closest(word string, known []string) string {
	limit := max(1, min(3, len(word)/3))
	best := slices.MinFunc(known, func(a, b string) int { return cmp.Compare(distance(word, a), distance(word, b)) })
	if distance(word, best) <= limit || strings.EqualFold(strings.ReplaceAll(word, "-", "_"), best) {
		return best
	}
	return ""
}

// distance counts the insertions, deletions and replacements between two short words (Levenshtein).
func distance(a, b string) int {
	const longest = 64
	if len(a) > longest || len(b) > longest {
		return longest
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := diagonal
			if a[i] != b[j] {
				next = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}
