package config

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// Write prints the effective configuration as TOML: what the file says and the defaults for what it does not. Secrets are
// left out, with a word in their place. Empty strings and lists are not written.
func (c *Config) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	v := reflect.ValueOf(c).Elem()
	writeKeys(b, v)
	for i := range v.NumField() {
		f, name := v.Field(i), v.Type().Field(i).Tag.Get("toml")
		switch {
		case f.Kind() == reflect.Struct:
			fmt.Fprintf(b, "\n[%s]\n", name)
			writeKeys(b, f)
		case isTables(f.Type()):
			for j := range f.Len() {
				fmt.Fprintf(b, "\n[[%s]]\n", name)
				writeKeys(b, f.Index(j))
			}
		}
	}
	return b.Flush()
}

func isTables(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct && t.Elem() != reflect.TypeFor[netip.Prefix]()
}

// writeKeys prints the plain keys of a struct.
func writeKeys(b *bufio.Writer, v reflect.Value) {
	for i := range v.NumField() {
		f, tag := v.Field(i), v.Type().Field(i).Tag
		if f.Kind() == reflect.Struct || isTables(f.Type()) {
			continue
		}
		if tag.Get("secret") != "" {
			if !f.IsZero() {
				fmt.Fprintf(b, "# %s is not shown\n", tag.Get("toml"))
			}
			continue
		}
		if text := tomlText(f.Interface()); text != "" {
			fmt.Fprintf(b, "%s = %s\n", tag.Get("toml"), text)
		}
	}
}

// tomlText is a value as it is written in the file; "" for one that needs no writing.
func tomlText(v any) string {
	switch v := v.(type) {
	case string:
		if v == "" {
			return ""
		}
		return tomlString(v)
	case bool:
		return strconv.FormatBool(v)
	case int:
		return strconv.Itoa(v)
	case Size:
		if v == 0 {
			return "0"
		}
		return tomlString(v.String())
	case time.Duration:
		return tomlString(durationText(v))
	case []string:
		var items []string
		for _, s := range v {
			items = append(items, tomlString(s))
		}
		return tomlList(items)
	case []netip.Prefix:
		items := []string{}
		for _, p := range v {
			items = append(items, tomlString(p.String()))
		}
		return "[" + strings.Join(items, ", ") + "]" // an empty one differs from the default
	}
	panic(fmt.Sprintf("config: a key of type %T cannot be printed", v))
}

func tomlList(items []string) string {
	if len(items) == 0 {
		return ""
	}
	return "[" + strings.Join(items, ", ") + "]"
}

// tomlString is a basic string (toml.io/en/v1.0.0, "String").
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
