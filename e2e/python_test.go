package e2e

import (
	"path/filepath"
	"testing"
)

// script runs one of testdata's Python scripts, which fail by themselves.
func (s *server) script(name string, args ...string) outcome {
	s.t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.do([]string{"PYTHONDONTWRITEBYTECODE=1"}, "python3", append([]string{path}, args...)...)
}

func TestPythonMailModules(t *testing.T) {
	needs(t, "python3")
	s := start(t, options{})
	s.script("mail_lab.py", "127.0.0.1", s.port("submission"), s.port("submissions"), s.port("imap"), s.port("imaps"), address("alice"),
		address("bob"), password).want(0)
}

func TestCourseProtocol(t *testing.T) {
	needs(t, "python3")
	s := start(t, options{})
	s.script("course.py", "127.0.0.1", s.port("legacy"), address("alice"), address("bob"), address("stranger")).want(0)
	// What was refused has left no trace in anybody's mailbox.
	if n := len(s.texts("bob", "INBOX")); n != 0 {
		t.Errorf("bob has %d mails, want none", n)
	}
}
