package e2e

import (
	"strings"
	"testing"
)

// curl's mail URLs: submission with and without TLS from the start, and IMAP reading, searching, filing.
func TestCurl(t *testing.T) {
	needs(t, "curl")
	s := start(t, options{})
	mail := s.write("mail", message(address("alice"), address("bob"), "by curl", "line one\r\n.\r\nline three\r\n"))
	login := []string{"-sSk", "-u", address("bob") + ":" + password}
	curl := func(args ...string) outcome { return s.do(nil, "curl", append(login, args...)...) }

	for _, url := range []string{"smtps://" + s.addr("submissions"), "smtp://" + s.addr("submission")} {
		args := []string{"-sSk", "-u", address("alice") + ":" + password, url, "--mail-from", address("alice"), "--mail-rcpt", address("bob"), "-T", mail}
		if strings.HasPrefix(url, "smtp:") {
			args = append(args, "--ssl-reqd")
		}
		s.do(nil, "curl", args...).want(0)
	}
	s.do(nil, "curl", "-sSk", "-u", address("alice")+":wrong", "smtps://"+s.addr("submissions"), "--mail-from", address("alice"),
		"--mail-rcpt", address("bob"), "-T", mail).want(67) // CURLE_LOGIN_DENIED

	imaps, imap := "imaps://"+s.addr("imaps"), "imap://"+s.addr("imap")
	curl(imaps+"/").want(0, `^\* LIST \(.*\) "/" "?INBOX"?`, `^\* LIST \(.*\\Sent.*\) "/" "?Sent"?`)
	curl("--ssl-reqd", imap+"/").want(0, `^\* LIST`)
	curl(imaps+"/INBOX;MAILINDEX=1").want(0, `^Subject: by curl`, `^line one\r?$`, `^\.\r?$`, `^line three\r?$`)
	curl(imaps+"/INBOX;MAILINDEX=2;SECTION=TEXT").want(0, `\Aline one`)
	curl(imaps+"/INBOX;UID=1;SECTION=HEADER.FIELDS%20(SUBJECT)").want(0, `\ASubject: by curl`)
	curl(imaps+"/INBOX?SUBJECT%20curl").want(0, `^\* SEARCH 1 2`)
	curl(imaps + "/INBOX;MAILINDEX=9").want(78) // CURLE_REMOTE_FILE_NOT_FOUND
	curl(imaps+"/NoSuch;MAILINDEX=1").want(67, `Select failed`)

	curl(imaps+"/", "-X", "CREATE Mappe").want(0)
	curl(imaps+"/Mappe", "-T", mail).want(0)
	curl(imaps+"/Mappe", "-X", "STORE 1 +FLAGS \\Flagged").want(0, `FLAGS \(.*\\Flagged.*\)`)
	curl(imaps+"/", "-X", "STATUS Mappe (MESSAGES UIDNEXT)").want(0, `^\* STATUS "?Mappe"? \(MESSAGES 1 UIDNEXT 2\)`)
	s.do(nil, "curl", "-sSk", "-u", address("bob")+":wrong", imaps+"/").want(67)
	if got := s.texts("bob", "Mappe"); len(got) != 1 || !strings.Contains(got[0], "line one\r\n.\r\nline three\r\n") {
		t.Errorf("curl's upload is %q", got)
	}
	s.do(nil, "curl", "-sS", "http://"+s.addr("http")+"/healthz", "http://"+s.addr("http")+"/metrics").want(0, `^# HELP `, `mailsrv`)
}
