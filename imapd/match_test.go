package imapd

import (
	"testing"
	"time"

	"mailsrv/storage"
)

// TestMatch asks one key of one message with everything loaded.
func TestMatch(t *testing.T) {
	received := time.Date(2026, 11, 2, 23, 30, 0, 0, time.UTC)
	for _, c := range []struct {
		mail, key string
		want      bool
	}{
		{"nested", "ALL", true},
		{"nested", "SUBJECT gruesse", false},
		{"nested", "CHARSET UTF-8 SUBJECT \"GRÜẞE AUS\"", true},
		{"nested", "CHARSET ISO-8859-1 FROM \"J\xdcRGEN\"", true},
		{"nested", `TO carol`, true},
		{"nested", `TO "alice@example.test, carol"`, true},
		{"nested", `CC undisclosed`, true},
		{"nested", `CC ""`, true},
		{"nested", `BCC ""`, false},
		{"nested", `HEADER message-id nested@`, true},
		{"nested", `HEADER Content-Disposition ""`, false}, // a part's header, not the message's
		{"plain", `HEADER X-Fold "second` + "\t" + `third"`, true},
		{"plain", `HEADER X-Fold "first second"`, true},

		{"nested", "CHARSET UTF-8 BODY \"schöne grüsse\"", true}, // quoted-printable, Latin-1
		{"nested", `BODY "eins weiter"`, true},                   // soft line break
		{"nested", `BODY "fetter text"`, true},                   // between HTML tags
		{"nested", `BODY "example.test/link"`, true},             // in an HTML attribute
		{"nested", `BODY "deep text"`, true},
		{"nested", `BODY "inner subject"`, true},
		{"nested", `BODY "report.pdf"`, true}, // an attachment's name
		{"nested", `BODY "PDF-1.4"`, false},   // not text
		{"nested", `BODY JVBERi0`, false},     // nor its base64
		{"nested", `BODY RmV0dDxi`, false},    // nor that of text
		{"nested", `BODY "aus berlin"`, false},
		{"nested", `TEXT "aus berlin"`, true},
		{"nested", `TEXT "subject: inner"`, true},
		{"plain", `BODY needle`, true},
		{"plain", `NOT BODY needle`, false},
		{"plain", `BODY ""`, true},
		{"plain", `TEXT ""`, true},
		{"noheader", `BODY "second LINE"`, true},
		{"empty", `BODY x`, false},
		{"held", `BODY "held body"`, true},
		{"held", `SUBJECT held`, false},
		{"held", `BODY "subject: held"`, true},

		{"nested", "ON 2-Nov-2026", true},
		{"nested", "ON 3-Nov-2026", false},
		{"nested", "BEFORE 3-Nov-2026", true},
		{"nested", "BEFORE 2-Nov-2026", false},
		{"nested", "SINCE 2-Nov-2026", true},
		{"nested", "SINCE 3-Nov-2026", false},
		{"nested", "SENTON 4-Nov-2026", true}, // as written, though it is the 5th in UTC
		{"nested", "SENTON 5-Nov-2026", false},
		{"nested", "SENTSINCE 4-Nov-2026", true},
		{"nested", "SENTBEFORE 4-Nov-2026", false},
		{"noheader", "SENTBEFORE 4-Nov-2026", false},
		{"noheader", "SENTSINCE 1-Jan-0001", false},
		{"noheader", "NOT SENTSINCE 1-Jan-1970", true},

		{"empty", "LARGER 22", true},
		{"empty", "LARGER 23", false},
		{"empty", "SMALLER 24", true},
		{"empty", "SMALLER 23", false},
		{"empty", "SMALLER 0", false},
		{"empty", "KEYWORD $Forwarded SEEN UNFLAGGED OLD UID 105 3 MODSEQ 7", true},
		{"empty", "OR FLAGGED DRAFT", false},
		{"empty", "MODSEQ 8", false},
		{"empty", "NEW", false},
		{"empty", "$", true},
		{"empty", "NOT $", false},
	} {
		raw := mails(t)[c.mail+".eml"]
		p := newTestParser(t, " "+c.key)
		prog := p.Search()
		if !p.End() {
			t.Errorf("%s: %s", c.key, p.Refusal().text)
			continue
		}
		row := storage.Row{UID: 105, Flags: storage.Seen | 1<<8, ModSeq: 7}
		m := &candidate{seq: 3, row: row}
		if v := prog.key.test(m); v != unknown && v != verdictOf(c.want) {
			t.Errorf("%s: %s: by the row alone: %v", c.mail, c.key, v)
		}
		m.msg = &storage.Message{UID: 105, Size: int64(len(raw)), InternalDate: received}
		if v := prog.key.test(m); v != unknown && v != verdictOf(c.want) {
			t.Errorf("%s: %s: by the index: %v", c.mail, c.key, v)
		} else if v == unknown && prog.key.cost() <= costMessage {
			t.Errorf("%s: %s: unknown, though it costs %d", c.mail, c.key, prog.key.cost())
		}
		m.msg.Summary = summarize(t, raw)
		m.body = newMemBody(raw)
		if v := prog.key.test(m); v != verdictOf(c.want) || m.err != nil {
			t.Errorf("%s: %s: %v, %v", c.mail, c.key, v, m.err)
		}
	}
}
