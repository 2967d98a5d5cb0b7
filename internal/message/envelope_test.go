package message

import (
	"strings"
	"testing"
)

// What ENVELOPE says of an address field, next to what Dovecot 2.3 says where that differs.
func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		`user@host`:                         `(NIL NIL "user" "host")`,
		`user@host (Full Name)`:             `("Full Name" NIL "user" "host")`,
		`user@host (one) (two \) (nested))`: `("two ) (nested)" NIL "user" "host")`,
		`(before) user (mid) @ host`:        `("mid" NIL "user" "host")`,
		`Full Name <user@host>`:             `("Full Name" NIL "user" "host")`,
		`<user@host> (Full Name)`:           `("Full Name" NIL "user" "host")`,
		`"Full \"N\" Name" <user@host>`:     `("Full \"N\" Name" NIL "user" "host")`,
		`"" <user@host>`:                    `(NIL NIL "user" "host")`,
		`J. R. (c) Bob  Smith <x@y>`:        `("J. R. Bob Smith" NIL "x" "y")`,
		`"x"y <a@b>`:                        `("x y" NIL "a" "b")`,
		`=?utf-8?q?=C3=A9?= <a@b>`:          `("=?utf-8?q?=C3=A9?=" NIL "a" "b")`,
		`=?utf-8?q?a,b?= <a@b>`:             `("=?utf-8?q?a,b?=" NIL "a" "b")`, // Dovecot splits the name
		"é <a@b>":                           "({2}\r\né NIL \"a\" \"b\")",
		`"john doe"@host`:                   `(NIL NIL "john doe" "host")`,
		`john . doe @ host . test`:          `(NIL NIL "john.doe" "host.test")`,
		`a@[192.0.2.1]`:                     `(NIL NIL "a" "[192.0.2.1]")`,
		`<@a,@b:c@d>`:                       `(NIL "@a,@b" "c" "d")`,
		`Name <@a:c@d>`:                     `("Name" "@a" "c" "d")`,
		`Group: a@b, "C D" <c@d>;, e@f`:     `(NIL NIL "Group" NIL)(NIL NIL "a" "b")("C D" NIL "c" "d")(NIL NIL NIL NIL)(NIL NIL "e" "f")`,
		`undisclosed-recipients:;`:          `(NIL NIL "undisclosed-recipients" NIL)(NIL NIL NIL NIL)`,
		`"quoted: group": ;`:                `(NIL NIL "quoted: group" NIL)(NIL NIL NIL NIL)`,
		`Open: a@b`:                         `(NIL NIL "Open" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL)`,
		`A: a@b; B: ;`:                      `(NIL NIL "A" NIL)(NIL NIL "a" "b")(NIL NIL NIL NIL)(NIL NIL "B" NIL)(NIL NIL NIL NIL)`,
		`a@b, , c@d,`:                       `(NIL NIL "a" "b")(NIL NIL "c" "d")`, // Dovecot: MISSING_MAILBOX between
		`foo`:                               `(NIL NIL "foo" "MISSING_DOMAIN")`,
		`foo (bar)`:                         `("bar" NIL "foo" "MISSING_DOMAIN")`,
		`<foo>`:                             `(NIL NIL "foo" "MISSING_DOMAIN")`,
		`@host`:                             `(NIL NIL "MISSING_MAILBOX" "host")`,
		`foo@`:                              `(NIL NIL "foo" "MISSING_DOMAIN")`,
		`<>`:                                `(NIL NIL "MISSING_MAILBOX" "MISSING_DOMAIN")`,
		`name <>`:                           `("name" NIL "MISSING_MAILBOX" "MISSING_DOMAIN")`,
		`a b c`:                             `("a b c" NIL "MISSING_MAILBOX" "MISSING_DOMAIN")`,
		`"a@b"`:                             `("a@b" NIL "MISSING_MAILBOX" "MISSING_DOMAIN")`,
		`a b <c`:                            `("a b" NIL "c" "MISSING_DOMAIN")`, // Dovecot: SYNTAX_ERROR
		`<a@b`:                              `(NIL NIL "a" "b")`,
		`<c, d@e`:                           `(NIL NIL "c" "MISSING_DOMAIN")(NIL NIL "d" "e")`,
		`foo bar@host`:                      `("foo" NIL "bar" "host")`,                            // Dovecot: a name
		`a@b; c@d`:                          `(NIL NIL "a" "b")(NIL NIL "c" "d")`,                  // Dovecot stops
		`a@b c@d, e@f`:                      `(NIL NIL "a" "b")(NIL NIL "c" "d")(NIL NIL "e" "f")`, // Dovecot stops
		`<a@b> <c@d>, e@f`:                  `(NIL NIL "a" "b")(NIL NIL "c" "d")(NIL NIL "e" "f")`, // Dovecot stops
		`<a@b> junk, e@f`:                   `(NIL NIL "a" "b")(NIL NIL "e" "f")`,                  // Dovecot stops
		`bank@bank.test <evil@x>`:           `("bank@bank.test" NIL "evil" "x")`,                   // Dovecot: the bank
		`"unterminated <a@b>, c@d`:          `("unterminated <a@b>, c@d" NIL "MISSING_MAILBOX" "MISSING_DOMAIN")`,
		`a@b (unterminated, c@d`:            `("unterminated, c@d" NIL "a" "b")`,
		`(only a comment)`:                  ``,
		` , ;; ,`:                           ``,
		`foo: bar: a@b;`:                    `(NIL NIL "foo" NIL)("bar:" NIL "a" "b")(NIL NIL NIL NIL)`,
		`a@b@c`:                             `(NIL NIL "a" "b")`,
		`<a@b@c>`:                           `(NIL NIL "a@b" "c")`,
		`<a b@c>`:                           `(NIL NIL "a b" "c")`,
		`"back\slash\\" <a@b>`:              `("backslash\\" NIL "a" "b")`,
	} {
		if got := string(addressList([]string{in}, 1<<20)); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestEnvelope(t *testing.T) {
	nils := func(n int) string { return strings.Repeat(" NIL", n) }
	for in, want := range map[string]string{
		"":                                "(NIL" + nils(9) + ")",
		"Subject:\r\nDate: \r\n":          `("" ""` + nils(8) + ")",
		"In-Reply-To:\r\nMessage-ID:\r\n": "(NIL" + nils(7) + ` "" "")`,
		"From:\r\nTo: \r\nCc: ,\r\n":      "(NIL" + nils(9) + ")",
		"From: a@b\r\nSender:\r\nReply-To: (none)\r\n": `(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "a" "b")) ((NIL NIL "a" "b"))` + nils(5) + ")",
		"From: a@b\r\nSender: c@d\r\n":                 `(NIL NIL ((NIL NIL "a" "b")) ((NIL NIL "c" "d")) ((NIL NIL "a" "b"))` + nils(5) + ")",
		"Sender: c@d\r\n":                              `(NIL NIL NIL ((NIL NIL "c" "d"))` + nils(6) + ")",
		"subject : spaced name\r\n":                    `(NIL "spaced name"` + nils(8) + ")",
		"Subject: fol\r\n ded  \r\n\tx\r\n":            "(NIL \"fol ded  \tx\"" + nils(8) + ")",
		"Subject: \"q\" \\\r\n":                        `(NIL "\"q\" \\"` + nils(8) + ")",
		"Subject: é\x00é\r\n":                          "(NIL {4}\r\néé" + nils(8) + ")",
		"Subject: a\rb\r\n":                            "(NIL {3}\r\na\rb" + nils(8) + ")",
		"Subject: \x7f\r\n":                            "(NIL {1}\r\n\x7f" + nils(8) + ")",
		"Subject: =?utf-8?q?=C3=A9?=\r\n":              `(NIL "=?utf-8?q?=C3=A9?="` + nils(8) + ")",
		"Date:  Mon, 7 Oct 2024 10:15 (c) \r\n":        `("Mon, 7 Oct 2024 10:15 (c)"` + nils(9) + ")",
		"Date: 1\r\nDate: 2\r\nTo: a@b\r\nTo: c@d\r\n": `("2"` + nils(4) + ` ((NIL NIL "a" "b")(NIL NIL "c" "d"))` + nils(4) + ")",
		"Bcc: a@b\r\n":                                 "(NIL" + nils(6) + ` ((NIL NIL "a" "b"))` + nils(2) + ")",
	} {
		if got := scan([]byte(in + "\r\n")).Envelope; got != want {
			t.Errorf("%q\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestBodyOf(t *testing.T) {
	for in, want := range map[string]string{
		`("text" "plain" NIL NIL NIL "7bit" 3 1 NIL NIL NIL NIL)`:                                                                                  `("text" "plain" NIL NIL NIL "7bit" 3 1)`,
		`("TEXT" "plain" ("charset" "a)b\"(") NIL NIL "7bit" 3 1)`:                                                                                 `("TEXT" "plain" ("charset" "a)b\"(") NIL NIL "7bit" 3 1)`,
		"(\"image\" {4}\r\na) ( NIL NIL {3}\r\n\"\\( \"7bit\" 3 NIL (\"x\" NIL) (\"en\" \"de\") {2}\r\n)))":                                        "(\"image\" {4}\r\na) ( NIL NIL {3}\r\n\"\\( \"7bit\" 3)",
		`(("a" "b" NIL NIL NIL "7bit" 3 NIL NIL NIL NIL)("text" "b" NIL NIL NIL "7bit" 3 1 NIL NIL NIL NIL) "mixed" ("boundary" "x") NIL NIL NIL)`: `(("a" "b" NIL NIL NIL "7bit" 3)("text" "b" NIL NIL NIL "7bit" 3 1) "mixed")`,
		`("Message" "RFC822" NIL NIL NIL "7bit" 3 (NIL "x)" NIL) ("text" "p" NIL NIL NIL "7bit" 3 1 NIL NIL) 5 NIL NIL)`:                           `("Message" "RFC822" NIL NIL NIL "7bit" 3 (NIL "x)" NIL) ("text" "p" NIL NIL NIL "7bit" 3 1) 5)`,
		// What cannot be read stays.
		"": "", "(": "(", ")": ")", "()": "()", `("text"`: `("text"`, "x": "x", "({9}\r\nabc)": "({9}\r\nabc)", `("a" "b" NIL)`: `("a" "b" NIL)`,
		strings.Repeat("(", 1000): strings.Repeat("(", 1000),
	} {
		if got := BodyOf(in); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	for in, want := range map[string]string{
		`text/plain`:                                `text plain NIL`,
		`Text/HTML ; Charset = utf-8 (c)`:           `Text HTML ("Charset" "utf-8")`,
		`a/b;c=d;e="f;\"g";`:                        `a b ("c" "d" "e" "f;\"g")`,
		`a/b; name=my file (draft).txt; x=y`:        `a b ("name" "my file" "x" "y")`,
		`a/b; name=one x=y`:                         `a b ("name" "one" "x" "y")`,
		`a/b; name="one" x=y`:                       `a b ("name" "one" "x" "y")`,
		`a/b; name==?utf-8?q?a_b?= =?utf-8?q?c?=`:   `a b ("name" "=?utf-8?q?a_b?= =?utf-8?q?c?=")`,
		`a/b; boundary=----=_Part/1?2:3`:            `a b ("boundary" "----=_Part/1?2:3")`,
		`a/b; c; d=; =e; "f"=g; h=i`:                `a b ("h" "i")`,
		`a/b; c=""`:                                 `a b ("c" "")`,
		`a/b; n*0=x; n*1="y z"; n*2=!`:              `a b ("n" "xy z!")`,
		`a/b; n*1=y; m=1; n*0=x`:                    `a b ("m" "1" "n" "xy")`,
		`a/b; n*0*=utf-8''%C3; n*1*=%A9; n*2="50%"`: `a b ("n*" "utf-8''%C3%A950%25")`,
		`a/b; n*=utf-8'en'x; n=y`:                   `a b ("n*" "utf-8'en'x" "n" "y")`,
		`a/b; n*1=lost; n*x=odd`:                    `a b ("n*x" "odd" "n*1" "lost")`,
		`text`:                                      `  NIL`,
		`text/`:                                     `  NIL`,
		`/plain`:                                    `  NIL`,
		`multi part/mixed`:                          `  NIL`,
		``:                                          `  NIL`,
	} {
		typ, subtype, params := parseContentType(in)
		if got := typ + " " + subtype + " " + string(appendParams(nil, params, false)); got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestFilename(t *testing.T) {
	for in, want := range map[string]string{
		`attachment; filename=a.pdf`:                                           "a.pdf",
		`attachment; filename="a b.pdf"`:                                       "a b.pdf",
		`attachment; filename=old.pdf; filename*=utf-8''n%C3%A9w.pdf`:          "néw.pdf",
		`attachment; filename*0*=koi8-r''%C6; filename*1*=%C1; filename*2=%41`: "фа%41",
		`attachment; filename="=?utf-8?B?w6kucGRm?="`:                          "é.pdf",
		`attachment; filename="=?iso-8859-1?Q?caf=E9?= 1.pdf"`:                 "café 1.pdf",
		"attachment; filename=\"\xe9.pdf\"":                                    "é.pdf",
		"attachment; filename=\"é\t\x01.pdf\"":                                 "é.pdf",
		`attachment; filename*=x-nonsense''%41%e9`:                             "Aé",
		`attachment; filename*=%41`:                                            "A",
		`attachment; filename="../../etc/passwd"`:                              "../../etc/passwd",
		`inline`: "from-type.txt",
	} {
		s := scan([]byte("Content-Type: text/plain; name=from-type.txt\r\nContent-Disposition: " + in + "\r\n\r\n"))
		if s.Root.Filename != want {
			t.Errorf("%s: got %q, want %q", in, s.Root.Filename, want)
		}
	}
}
