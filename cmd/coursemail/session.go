package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode/utf8"
)

// session is a run of commands over one connection.
type session struct {
	texts       *texts
	server      *server
	lines       lines
	out         *sink
	errs        io.Writer
	askPassword bool
	person      bool // at a terminal: who has seen what went wrong

	entered bool // an entry worked
	failed  bool // a command did not
}

// command is a row of the language.
type command struct {
	name     string
	argument string // as the usage shows it; "" means that there is none
	entered  bool   // needs a mailbox
	run      func(*session, string) error
}

// commands is the language, quit apart, which ends it.
var commands = [...]command{
	{"entry", `"username"`, false, (*session).entry},
	{"send", "something@something.something", true, (*session).sendMail},
	{"mailbox", "", true, (*session).mailbox},
	{"open", `"id"`, true, (*session).open},
	{"del", `"id"`, true, (*session).del},
	{"quit", "", false, nil},
}

// addressForm is the lab's own check, [\w\.-]+@[\w\.-]+(\.[\w]+)+ with \w of any script, as Python's; before the @ all of RFC 5322's
// atext is let through.
var addressForm = regexp.MustCompile("^[\\p{L}\\p{M}\\p{N}_.!#$%&'*+/=?^`{|}~-]+@[\\p{L}\\p{M}\\p{N}_.-]+(\\.[\\p{L}\\p{M}\\p{N}_-]+)+$")

// complaint is a command that was not carried out; the session goes on.
type complaint struct{ text string }

func (c complaint) Error() string { return c.text }

func complain(format string, args ...any) error { return complaint{fmt.Sprintf(format, args...)} }

// run serves commands until quit or the end of the input, and returns the exit code.
func (s *session) run() int {
	for {
		line, err := s.read(s.lines.line, s.texts.prompt)
		if err == nil {
			if name, argument := split(line); name == "quit" && argument == "" {
				return s.quit(true)
			}
			err = s.do(line)
		}
		if s.out.err != nil {
			s.failed = true
			fmt.Fprintln(s.errs, s.out.err)
			return s.quit(false)
		}
		var c complaint
		switch {
		case errors.As(err, &c):
			s.failed = true
			fmt.Fprintln(s.errs, c.text)
		case errors.Is(err, errEnd):
			return s.quit(s.person)
		case err != nil:
			fmt.Fprintln(s.errs, s.texts.explain(err))
			return exitLost
		}
	}
}

// errEnd is the end of the input: not io.EOF, which is the server's.
var errEnd = errors.New("end of input")

// read returns a line that can be sent.
func (s *session) read(from func(string) (string, error), prompt string) (string, error) {
	line, err := from(prompt)
	switch {
	case errors.Is(err, errLongLine):
		return "", complain(s.texts.longLine, maxLine)
	case err != nil: // however the input ended, there is no more of it
		if err != io.EOF && !s.person {
			s.failed = true
			fmt.Fprintln(s.errs, err)
		}
		return "", errEnd
	case !utf8.ValidString(line):
		return "", complain("%s", s.texts.notUTF8)
	}
	return line, nil
}

// split cuts a line into the command and its argument, which may stand in quotes as in the lab's list of commands.
func split(line string) (name, argument string) {
	name, argument, _ = strings.Cut(strings.TrimSpace(line), " ")
	argument = strings.TrimSpace(argument)
	if n := len(argument); n >= 2 && argument[0] == '"' && argument[n-1] == '"' {
		argument = argument[1 : n-1]
	}
	return name, argument
}

func (s *session) do(line string) error {
	name, argument := split(line)
	if name == "" {
		return nil
	}
	for _, c := range commands {
		if c.name != name {
			continue
		}
		var wrong error
		switch {
		case (argument == "") != (c.argument == "") || c.run == nil:
			wrong = complain(s.texts.usage, c.name, c.argument)
		case c.entered && !s.entered:
			wrong = complain("%s", s.texts.notEntered)
		}
		if wrong == nil {
			return c.run(s, argument)
		}
		s.skipAnswers(name)
		return wrong
	}
	return complain(s.texts.unknown, name)
}

// skipAnswers reads the lines of a pipe that would have answered the questions of a command that is not carried out: they must not be
// taken for commands. A person is not asked.
func (s *session) skipAnswers(name string) {
	questions := 0
	switch {
	case s.person:
	case name == "send":
		questions = 2
	case name == "entry" && s.askPassword:
		questions = 1
	}
	for range questions {
		_, _ = s.lines.line("") // the end of the input is found by who reads next
	}
}

// cutShort is the end of the input where an answer was asked for: a person leaves so, a pipe is broken.
func (s *session) cutShort(name string) error {
	if s.person {
		return errEnd
	}
	return complain(s.texts.cutShort, name)
}

func (s *session) entry(address string) error {
	if !addressForm.MatchString(address) {
		s.skipAnswers("entry")
		return complain(s.texts.badAddress, address)
	}
	body := map[string]string{"name": address}
	if s.askPassword {
		password, err := s.read(s.lines.secret, s.texts.password)
		if errors.Is(err, errEnd) {
			return s.cutShort("entry")
		} else if err != nil {
			return err
		}
		body["password"] = password
	}
	if err := s.ask(typeEntry, body); err != nil {
		return err
	}
	s.entered = true
	return nil
}

func (s *session) sendMail(to string) error {
	if !addressForm.MatchString(to) {
		s.skipAnswers("send")
		return complain(s.texts.badAddress, to)
	}
	header, wrongHeader := s.read(s.lines.line, s.texts.header)
	text, wrongText := "", error(nil)
	if !errors.Is(wrongHeader, errEnd) {
		text, wrongText = s.read(s.lines.line, s.texts.text)
	}
	if err := errors.Join(wrongHeader, wrongText); errors.Is(err, errEnd) {
		return s.cutShort("send")
	}
	for _, wrong := range []error{wrongHeader, wrongText} {
		if wrong != nil {
			return wrong
		}
	}
	return s.ask(typeSend, struct {
		To     string `json:"to"`
		Header string `json:"header"`
		Text   string `json:"text"`
	}{to, header, text})
}

func (s *session) mailbox(string) error {
	r, err := s.request(typeMailbox, nil)
	if err != nil {
		return err
	}
	mails, err := parseMails(r.body)
	if err != nil {
		return err
	}
	fmt.Fprintln(s.out, s.texts.mailbox)
	for _, m := range mails {
		printMail(s.out, m)
	}
	return nil
}

func (s *session) open(id string) error {
	r, err := s.request(typeOpen, map[string]string{"index": id})
	if err != nil {
		return err
	}
	mail, err := parseMail(r.body)
	if err != nil {
		return err
	}
	printMail(s.out, mail)
	return nil
}

func (s *session) del(id string) error { return s.ask(typeDel, map[string]string{"index": id}) }

// quit leaves. The protocol has no answer to it, so neither has a server that is gone already.
func (s *session) quit(say bool) int {
	_ = s.server.send(typeQuit, nil)
	if say {
		fmt.Fprintln(s.out, s.texts.bye)
	}
	if s.failed && !s.person {
		return exitRefused
	}
	return exitOK
}

// ask is a request that is answered with "OK".
func (s *session) ask(kind int32, body any) error {
	r, err := s.request(kind, body)
	if err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(r.body, &text); err != nil {
		return &badReply{fmt.Sprintf("type %d instead of an OK", r.kind)}
	}
	if text == "OK" {
		text = s.texts.success
	}
	fmt.Fprintln(s.out, text)
	return nil
}

// request asks, and makes a refusal a complaint.
func (s *session) request(kind int32, body any) (reply, error) {
	r, err := s.server.ask(kind, body)
	if err != nil || r.kind != typeError {
		return r, err
	}
	var text string
	if err := json.Unmarshal(r.body, &text); err != nil {
		text = string(r.body)
	}
	return r, complain(s.texts.refused, text)
}
