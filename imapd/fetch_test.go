package imapd

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/emersion/go-imap/v2"
)

// showItems spells items as they are answered, with what else was asked of them.
func showItems(items []fetchItem) string {
	var parts []string
	for _, it := range items {
		var b bytes.Buffer
		w := newWriter(&b)
		if it.kind == fetchSection && !it.plain || it.kind == fetchBinary || it.kind == fetchBinarySize {
			w.sectionLabel(it.name, &it.section)
		} else {
			w.Raw(it.name)
		}
		if p := it.section.Partial; p != nil {
			w.Raw(fmt.Sprintf(".%d", p.Size))
		}
		if it.sets() {
			w.Raw("!")
		}
		_ = w.Flush()
		parts = append(parts, b.String())
	}
	return strings.Join(parts, " ")
}

func TestFetchSyntax(t *testing.T) {
	for _, c := range []struct {
		args string
		uid  bool
		want string // "!" marks what sets \Seen
	}{
		{"1 FLAGS", false, "FLAGS"},
		{"1:* all", false, "FLAGS INTERNALDATE RFC822.SIZE ENVELOPE"},
		{"1 Fast", false, "FLAGS INTERNALDATE RFC822.SIZE"},
		{"1 FULL", true, "UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODY"},
		{"1 (UID flags)", true, "UID FLAGS"},
		{"1 (FLAGS UID FLAGS)", false, "FLAGS UID"},
		{"1 FLAGS", true, "UID FLAGS"},
		{"$ FLAGS", false, "FLAGS"},
		{"1 (RFC822 RFC822.HEADER RFC822.TEXT)", false, "RFC822! RFC822.HEADER RFC822.TEXT!"},
		{"1 (BODY BODY[] BODY.PEEK[] BODYSTRUCTURE)", false, "BODY BODY[]! BODY[] BODYSTRUCTURE"},
		{"1 body.peek[1.2.header]", false, "BODY[1.2.HEADER]"},
		{"1 BODY.PEEK[header.fields (From \"To\" {2}", false, "BAD: Unexpected"}, // literal still to come: see transcripts
		{`1 BODY.PEEK[1.HEADER.FIELDS.NOT (From "X Y" X-Q\)]`, false, "BAD: "},
		{`1 BODY.PEEK[1.HEADER.FIELDS.NOT (From "X Y" "")]`, false, `BODY[1.HEADER.FIELDS.NOT (From "X Y" "")]`},
		{"1 BODY[3.MIME]<5.10>", false, "BODY[3.MIME]<5>.10!"},
		{"1 BODY[TEXT]<9223372036854775807.9223372036854775807>", false, "BODY[TEXT]<9223372036854775807>.9223372036854775807!"},
		{"1 (BINARY[1] BINARY.PEEK[1.2]<0.3> BINARY.SIZE[2] BINARY[])", false, "BINARY[1]! BINARY[1.2]<0>.3 BINARY.SIZE[2] BINARY[]!"},
		{"1 FLAGS (CHANGEDSINCE 12345)", false, "FLAGS MODSEQ"},
		{"1 (MODSEQ FLAGS) (changedsince 0)", true, "UID MODSEQ FLAGS"},

		{"1", false, `BAD: Expected " " before the line's end`},
		{"1 ()", false, `BAD: Empty list of FETCH items`},
		{"1 (ALL)", false, `BAD: Unknown FETCH item "ALL"`},
		{"1 FROB", false, `BAD: Unknown FETCH item "FROB"`},
		{"1 FROB[]", false, `BAD: Unknown FETCH item "FROB"[`},
		{"1 FLAGS UID", false, `BAD: Expected "(" before "UID"`},
		{"1 BODY[", false, `BAD: Expected a section before the line's end`},
		{"1 BODY[]]", false, `BAD: Expected " " before ")"`},
		{"1 BODY[0]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[1.]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[01]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[4294967296]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[" + strings.Repeat("1.", 300) + "1]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[MIME]", false, `BAD: Unknown section "MIME"`},
		{"1 BODY[1HEADER]", false, `BAD: Invalid part number in a section`},
		{"1 BODY[HEADER.FIELDS]", false, `BAD: Expected " " before ")"`},
		{"1 BODY[HEADER.FIELDS ()]", false, `BAD: Empty list of header fields`},
		{"1 BODY[]<0.0>", false, `BAD: Partial of zero octets`},
		{"1 BODY[]<9223372036854775808.1>", false, `BAD: 9223372036854775808 is out of range for a number`},
		{"1 BODY[]<1>", false, `BAD: Expected "." before ">"`},
		{"1 BINARY[HEADER]", false, `BAD: BINARY takes part numbers only`},
		{"1 BINARY.SIZE[1]<0.1>", false, `BAD: Expected " " before "<0.1>"`},
		{"1 FLAGS (VANISHED)", false, `BAD: Unknown FETCH modifier "VANISHED"`},
		{"1 FLAGS (CHANGEDSINCE 1 CHANGEDSINCE 2)", false, `BAD: Unknown FETCH modifier "CHANGEDSINCE"`},
		{"1 (" + strings.TrimSpace(strings.Repeat("RFC822 ", 600)) + ")", false, `NO: Too many FETCH items`},
	} {
		r := readerOn(t, " "+c.args)
		f := r.Fetch(c.uid)
		got := ""
		if r.End() {
			got = showItems(f.items)
		} else {
			got = r.Refusal().status + ": " + r.Refusal().text
		}
		if got != c.want && !(strings.HasPrefix(c.want, "BAD: ") && len(c.want) < 20 && strings.HasPrefix(got, "BAD: ")) {
			t.Errorf("FETCH %.60s: %s, want %s", c.args, got, c.want)
		}
	}
}

// What is read of a section can be written, and is read the same again.
func FuzzFetch(f *testing.F) {
	for _, s := range []string{
		"1 ALL", "1:*,4 (FLAGS BODY.PEEK[1.2.HEADER.FIELDS (a b)]<0.5>)", "$ BINARY.SIZE[1.2]", "* (BODY[HEADER.FIELDS.NOT (\"x\\\"\")])",
		"1 FLAGS (CHANGEDSINCE 3)",
	} {
		f.Add(s, false)
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, args string, uid bool) {
		r := readerOn(t, " "+args)
		prog := r.Fetch(uid)
		if !r.End() {
			return
		}
		for _, it := range prog.items {
			if it.kind != fetchSection || it.plain {
				continue
			}
			it.section.Partial = nil
			label := showItems([]fetchItem{it})
			label = strings.TrimSuffix(label, "!")
			if strings.ContainsAny(label, "\r\n") {
				continue // a field's name came and goes as a literal
			}
			again := readerOn(t, " 1 "+label)
			prog := again.Fetch(false)
			if !again.End() || strings.TrimSuffix(showItems(prog.items), "!") != label {
				t.Errorf("%q is written as %s, which is %v, %s", args, label, again.err, showItems(prog.items))
			}
		}
	})
}

// Filtering in memory and filtering while reading are the same, whatever the buffer's ends cut.
func TestHeaderFilter(t *testing.T) {
	header := "From: a\r\nSubject: x\r\n folded\r\n\tmore\r\nno colon here\r\nFROM : b\r\nX: " + strings.Repeat("long ", 2000) +
		"\r\nTo: " + strings.Repeat("c", 5000) + "\r\n d\r\nfrom: end\r\n\r\n"
	for _, c := range []struct{ fields, not, want string }{
		{"from", "", "From: a\r\nFROM : b\r\nfrom: end\r\n\r\n"},
		{"subject", "", "Subject: x\r\n folded\r\n\tmore\r\n\r\n"},
		{"nothing", "", "\r\n"},
		{"", "x,to,from", "Subject: x\r\n folded\r\n\tmore\r\n\r\n"},
		{"to", "", "To: " + strings.Repeat("c", 5000) + "\r\n d\r\n\r\n"},
	} {
		var s imap.FetchItemBodySection
		if s.HeaderFields = strings.Split(c.fields, ","); c.fields == "" {
			s.HeaderFields, s.HeaderFieldsNot = nil, strings.Split(c.not, ",")
		}
		for _, pad := range []int{0, heldHeader} { // the second is too long to be held
			block := strings.Repeat("Pad: 123456789\r\n", pad/16) + header
			if c.not != "" {
				s.HeaderFieldsNot = append(s.HeaderFieldsNot, "pad")
			}
			got, err := headerContent(io.NewSectionReader(strings.NewReader(block), 0, int64(len(block))), &s)
			if err != nil {
				t.Fatal(err)
			}
			for _, off := range []int64{0, 2, got.size} {
				r, err := got.from(off)
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(r)
				if err != nil || string(text) != c.want[off:] || int64(len(c.want)) != got.size {
					t.Errorf("fields %s not %s, pad %d, from %d: %q, %v, size %d", c.fields, c.not, pad, off, text, err, got.size)
				}
			}
		}
	}
}
