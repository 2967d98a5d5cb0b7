package config

import (
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"
)

// maxFile bounds the configuration file: a hundred thousand accounts belong into system.db.
const maxFile = 4 << 20

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File string
	Line int    // 0: the file as a whole
	Key  string // "listen.imap"; "" where there is none
	Text string // what is wrong, and what to write instead
}

// String is "file:line: key: what is wrong, what to write instead".
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += fmt.Sprintf(":%d", p.Line)
	}
	if p.Key != "" {
		s += ": " + p.Key
	}
	return s + ": " + p.Text
}

// Problems are all that are wrong, by line.
type Problems []Problem

// Error is a problem a line.
func (ps Problems) Error() string {
	var lines []string
	for _, p := range ps {
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// Load reads and checks a configuration file. It returns either a Config or all problems at once, never both. It looks at the
// files that are named and whether the data folder could be written, and changes nothing.
func Load(path string) (*Config, Problems) {
	l := &loader{file: path, reported: make(map[Problem]bool)}
	data, err := readBounded(path, maxFile)
	if err != nil {
		l.report(0, "", fmt.Sprintf("cannot be read: %v", err))
		return nil, l.problems
	}
	root, whole := parseTree(data, l.report)
	c := Default()
	d := &decoder{report: l.report, places: make(map[any]place)}
	d.table(root, "", reflect.ValueOf(&c).Elem())
	if whole { // else much would only seem to be missing
		check(&c, d.places, l.report)
	}
	if len(l.problems) > 0 {
		slices.SortStableFunc(l.problems, func(a, b Problem) int { return a.Line - b.Line })
		return nil, l.problems
	}
	return &c, nil
}

// loader gathers problems.
type loader struct {
	file     string
	problems Problems
	reported map[Problem]bool
}

func (l *loader) report(line int, key, text string) {
	// A list of mistakes longer than a screen helps nobody, and a hostile file must not fill the log.
	const most = 100
	p := Problem{File: l.file, Line: line, Key: key, Text: text}
	if l.reported[p] || len(l.problems) >= most {
		return
	}
	l.reported[p] = true
	l.problems = append(l.problems, p)
}

// readBounded reads a regular file of at most limit bytes: a device or a pipe could go on for ever.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", path, limit)
	}
	return data, err
}
