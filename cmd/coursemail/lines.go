package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// maxLine is the longest line of a pipe, in bytes: a server's frame, escaped, may hold no more. The terminal's limit is x/term's 4,096
// characters.
const maxLine = 1 << 20

var errLongLine = errors.New("line too long") // the whole of it has been read

// lines is where commands come from: a person or a pipe.
type lines interface {
	line(prompt string) (string, error)   // without its end; io.EOF: there is no more
	secret(prompt string) (string, error) // the same, not shown
}

// pipe reads lines and prompts for nothing.
type pipe struct{ r *bufio.Reader }

func newPipe(r io.Reader) *pipe { return &pipe{bufio.NewReader(r)} }

func (p *pipe) secret(prompt string) (string, error) { return p.line(prompt) }

func (p *pipe) line(string) (string, error) {
	var b strings.Builder
	long := false
	for {
		part, err := p.r.ReadSlice('\n')
		if long = long || b.Len()+len(part) > maxLine; !long {
			b.Write(part)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && b.Len() > 0 && !long: // a last line that does not end is one
		case err != nil && !(err == io.EOF && long):
			return "", err
		}
		if long {
			return "", errLongLine
		}
		return strings.TrimSuffix(strings.TrimSuffix(b.String(), "\n"), "\r"), nil
	}
}

// console is a person's terminal: raw while a line is edited and at no other time, so that ^C ends a wait for the server.
type console struct {
	in, screen *os.File
	editor     *term.Terminal
	cooked     *term.State
}

func newConsole(in, screen *os.File) *console {
	c := &console{in: in, screen: screen}
	c.editor = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{in, screen}, "")
	c.editor.AutoCompleteCallback = complete
	c.cooked, _ = term.GetState(int(in.Fd()))
	return c
}

func (c *console) restore() {
	if c.cooked != nil {
		_ = term.Restore(int(c.in.Fd()), c.cooked)
	}
}

func (c *console) line(prompt string) (string, error) {
	return c.raw(func() (string, error) {
		c.editor.SetPrompt(prompt)
		return c.editor.ReadLine()
	})
}

func (c *console) secret(prompt string) (string, error) {
	return c.raw(func() (string, error) { return c.editor.ReadPassword(prompt) })
}

// raw runs read with the terminal raw, and at the width that it has by now.
func (c *console) raw(read func() (string, error)) (string, error) {
	if _, err := term.MakeRaw(int(c.in.Fd())); err != nil {
		return "", err
	}
	defer c.restore()
	if width, height, err := term.GetSize(int(c.screen.Fd())); err == nil && width > 0 {
		_ = c.editor.SetSize(width, height)
	}
	s, err := read()
	if errors.Is(err, term.ErrPasteIndicator) {
		err = nil
	}
	if err != nil { // ^C, ^D: the cursor is still behind the prompt
		_, _ = io.WriteString(c.screen, "\r\n")
	}
	return s, err
}

// complete finishes a command's name at the Tab key.
func complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' || pos != len(line) {
		return "", 0, false
	}
	for _, c := range commands {
		if name := c.name; line != "" && strings.HasPrefix(name, line) {
			if c.argument != "" {
				name += " "
			}
			return name, len(name), true
		}
	}
	return line, pos, true // a tab is no part of a command
}
