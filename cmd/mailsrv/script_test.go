package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// Each script in testdata is run in a house of its own: its commands print what is written below them and exit with the
// code that "exit" says (else 0). "…" in a line stands for anything. Scripts run twice, with the server stopped and with it
// running: what administrators see is the same. A line may differ by a mark before it: "stopped|" or "running|".
//
//	$ ARGUMENTS < STANDARD INPUT     runs mailsrv -config mailsrv.toml ARGUMENTS
//	% ARGUMENTS                      runs mailsrv ARGUMENTS
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		for _, mode := range []string{"stopped", "running"} {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt")+"/"+mode, func(t *testing.T) {
				t.Parallel()
				runScript(t, file, mode)
			})
		}
	}
}

func runScript(t *testing.T, file, mode string) {
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, demoConfig(t, ""))
	if mode == "running" {
		r := h.start()
		defer func() {
			if code := r.end(syscall.SIGTERM); code != 0 {
				t.Errorf("the server exits with %d\n%s", code, r.logged())
			}
		}()
	}
	lines := strings.Split(string(data), "\n")
	for i := 0; i < len(lines); {
		kind, command, ok := strings.Cut(lines[i], " ")
		i++
		if !ok || kind != "$" && kind != "%" {
			continue
		}
		line := i
		var want []string
		code := 0
		for ; i < len(lines) && lines[i] != "" && lines[i][0] != '$' && lines[i][0] != '%' && lines[i][0] != '#'; i++ {
			text := lines[i]
			if only, rest, marked := strings.Cut(text, "|"); marked && (only == "stopped" || only == "running") {
				if only != mode {
					continue
				}
				text = rest
			}
			if n, _ := fmt.Sscanf(text, "exit %d", &code); n == 0 {
				want = append(want, text)
			}
		}
		args, stdin, _ := strings.Cut(command, " < ")
		words := strings.Fields(args)
		if kind == "$" {
			words = append([]string{"-config", "mailsrv.toml"}, words...)
		}
		out, got := h.run(stdin, words...)
		pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.Join(want, "\n")), "…", "(?s:.*)")
		if got != code || !regexp.MustCompile(`^`+pattern+`$`).MatchString(strings.TrimRight(out, "\n")) {
			t.Errorf("%s:%d: %s: exit %d, want %d; output\n%swant\n%s", file, line, command, got, code, out, strings.Join(want, "\n"))
		}
	}
}

// docs/administration.md tells every command and no other. A row names it in `…`; `queue list\|show` is two.
func TestCommandsAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/administration.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for line := range strings.Lines(string(page)) {
		cell, isRow := strings.CutPrefix(line, "| `")
		if cell, _, _ = strings.Cut(cell, "` | "); !isRow {
			continue
		}
		for span := range strings.SplitSeq(cell, "`, `") {
			var name []string
			for word := range strings.FieldsSeq(span) {
				if strings.Trim(word, "abcdefghijklmnopqrstuvwxyz\\|") != "" {
					break
				}
				name = append(name, word)
			}
			last := len(name) - 1
			for alternative := range strings.SplitSeq(name[last], `\|`) {
				told = append(told, strings.Join(append(slices.Clone(name[:last]), alternative), " "))
			}
		}
	}
	var are []string
	for _, c := range commands() {
		are = append(are, c.name)
	}
	slices.Sort(told)
	slices.Sort(are)
	if !slices.Equal(told, are) {
		t.Errorf("docs/administration.md tells\n%q\nthere are\n%q", told, are)
	}
}
