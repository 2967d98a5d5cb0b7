package legacyd

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"mailsrv/storage"
)

// raw makes a frame with any length field.
func raw(kind int32, length int32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(kind))
	b = binary.BigEndian.AppendUint32(b, uint32(length))
	return append(b, body...)
}

func TestReadFrames(t *testing.T) {
	in := raw(2, 4, "null")
	in = append(in, raw(-7, 0, "")...)
	in = append(in, raw(1, 3, "{}\n")...)
	for name, r := range map[string]io.Reader{
		"at once": bytes.NewReader(in), "byte by byte": iotest.OneByteReader(bytes.NewReader(in)),
	} {
		f := &frameReader{r: r, max: 4, keep: 4}
		for _, want := range []frame{{kind: 2, body: []byte("null")}, {kind: -7}, {kind: 1, body: []byte("{}\n")}} {
			got, err := f.next()
			if err != nil || got.kind != want.kind || !bytes.Equal(got.body, want.body) {
				t.Errorf("%s: %d %q %v, want %d %q", name, got.kind, got.body, err, want.kind, want.body)
			}
		}
		if _, err := f.next(); err != io.EOF {
			t.Errorf("%s: at the end: %v", name, err)
		}
	}
}

func TestReadBadFrames(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		bad  bool // else an error of the connection
	}{
		{"negative length", raw(1, -1, ""), true},
		{"most negative length", raw(1, -1<<31, ""), true},
		{"one above the limit", raw(1, 1025, strings.Repeat("x", 1025)), true},
		{"longest length", raw(1, 1<<31-1, "x"), true},
		{"half a header", []byte{0, 0, 0}, false},
		{"half a body", raw(1, 10, "{}"), false},
		{"header only", raw(1, 10, ""), false},
	} {
		_, err := (&frameReader{r: bytes.NewReader(c.in), max: 1024, keep: 1024}).next()
		var bad *badFrame
		if errors.As(err, &bad) != c.bad || err == nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if !c.bad && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// What is announced costs nothing until it arrives.
func TestAnnouncedLengthTakesNoMemory(t *testing.T) {
	f := &frameReader{r: bytes.NewReader(raw(1, 1<<30, "x")), max: 1 << 30, keep: 1 << 30}
	if _, err := f.next(); !errors.Is(err, io.ErrUnexpectedEOF) || cap(f.buf) > 64<<10 {
		t.Errorf("%v, %d bytes", err, cap(f.buf))
	}
}

// A body that is not to be kept is read to its end and costs nothing.
func TestLongBodyIsThrownAway(t *testing.T) {
	in := append(raw(1, 1<<20, strings.Repeat("x", 1<<20)), raw(2, 4, "null")...)
	f := &frameReader{r: bytes.NewReader(in), max: 1 << 20, keep: keepStrangers}
	if got, err := f.next(); err != nil || !got.long || got.kind != 1 || cap(f.buf) > keepStrangers {
		t.Errorf("%d %v, %v, %d bytes", got.kind, got.long, err, cap(f.buf))
	}
	if got, err := f.next(); err != nil || got.long || got.kind != 2 || string(got.body) != "null" {
		t.Errorf("the next frame: %d %q, %v", got.kind, got.body, err)
	}
	f = &frameReader{r: bytes.NewReader(in[:1000]), max: 1 << 20, keep: keepStrangers}
	if _, err := f.next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
}

// However the bytes come, a body takes no more than twice its memory.
func TestBodyMemory(t *testing.T) {
	const n = 300_001
	f := &frameReader{r: iotest.OneByteReader(bytes.NewReader(raw(1, n, strings.Repeat("x", n)))), max: n, keep: n}
	if got, err := f.next(); err != nil || len(got.body) != n || cap(f.buf) != n {
		t.Errorf("%d bytes in %d, %v", len(got.body), cap(f.buf), err)
	}
}

func TestEncodeFrame(t *testing.T) {
	for _, c := range []struct {
		kind int32
		body any
		want string
	}{
		{0, "OK", "\x00\x00\x00\x00\x00\x00\x00\x04\"OK\""},
		{-2, "<я&>", "\xff\xff\xff\xfe\x00\x00\x00\x07\"<я&>\""},
		{3, mail{1, "a@b", "c@d", "h", "t"},
			"\x00\x00\x00\x03\x00\x00\x00\x43" + `{"id":1,"source":"a@b","destination":"c@d","header":"h","text":"t"}`},
	} {
		got, err := encodeFrame(c.kind, c.body)
		if err != nil || string(got) != c.want {
			t.Errorf("%d: %q, %v; want %q", c.kind, got, err, c.want)
		}
	}
}

func TestUID(t *testing.T) {
	for index, want := range map[string]storage.UID{
		`"1"`: 1, `1`: 1, `"007"`: 7, `1.0`: 1, `1e0`: 1, `4294967295`: 4294967295, `"4294967295"`: 4294967295,
		`0`: 0, `-0`: 0, `"-0"`: 0, `-1`: 0, `"-1"`: 0, `"+1"`: 0, `1.5`: 0, `4294967296`: 0, `"4294967296"`: 0, `4294967297`: 0,
		`1e400`: 0, `-1e400`: 0, `"99999999999999999999999"`: 0, `99999999999999999999999`: 0, `""`: 0, `"x"`: 0, `" 1"`: 0, `"1.0"`: 0,
		`"١"`: 0, `"0x1"`: 0, `"1_0"`: 0, `"\u0031"`: 1,
	} {
		r, err := parseRequest([]byte(`{"index": ` + index + `}`))
		if err != nil {
			t.Errorf("%s: %v", index, err)
			continue
		}
		if got, err := r.uid(); got != want || err != nil {
			t.Errorf("%s: %d, %v; want %d", index, got, err, want)
		}
	}
	for _, index := range []string{`null`, `true`, `[1]`, `{"a":1}`} {
		r, err := parseRequest([]byte(`{"index": ` + index + `}`))
		if err != nil {
			t.Errorf("%s: %v", index, err)
			continue
		}
		if _, err := r.uid(); err == nil {
			t.Errorf("%s taken", index)
		}
	}
}

func TestParseRequest(t *testing.T) {
	for _, bad := range []string{
		"", " ", "null", "[]", `"x"`, "1", "{", "{}x", `{"a":1}{}`, `{"a":NaN}`, `{'a':1}`, "{\"a\":\"\xff\"}", "{\"a\":\"\n\"}",
		strings.Repeat("[", 100_000), `{"a":` + strings.Repeat("[", 20) + strings.Repeat("]", 20) + "}", "\xef\xbb\xbf{}", "\x00",
	} {
		if _, err := parseRequest([]byte(bad)); err == nil {
			t.Errorf("%.40q taken", bad)
		} else if !errors.As(err, new(refusal)) {
			t.Errorf("%.40q: %v is not for the client", bad, err)
		}
	}
	r, err := parseRequest([]byte(`{"a": "\u0439[[[[[[[[[[[[[[[[[[[[", "n": null, "x": {"y": []}, "A": 1}`))
	if err != nil {
		t.Fatal(err)
	}
	if s, err := r.text("a"); s != "й[[[[[[[[[[[[[[[[[[[[" || err != nil {
		t.Errorf("%q, %v", s, err)
	}
	for _, key := range []string{"n", "x", "A", "missing"} {
		if s, err := r.text(key); err == nil {
			t.Errorf("%s: %q", key, s)
		}
	}
	if _, present, err := r.optionalText("n"); present || err != nil {
		t.Error("null is not absent", err)
	}
	if _, present, err := r.optionalText("A"); present || err == nil {
		t.Error("a number is text")
	}
}

func TestEnvelopeAddresses(t *testing.T) {
	const ann, bob = `("Ann \"A\" (x)" NIL "ann" "a.test")`, `(NIL NIL "bob" "b.test")`
	for _, c := range []struct{ envelope, from, to string }{
		{`("date" "subj" (` + ann + `) (` + bob + `) NIL (` + bob + ann + `) NIL NIL NIL "<id>")`, "ann@a.test", "bob@b.test, ann@a.test"},
		{`("date" {6}` + "\r\n" + `su)(j" (` + ann + `) NIL NIL NIL NIL NIL NIL NIL)`, "ann@a.test", ""},
		{`(NIL NIL NIL (` + bob + `) NIL ((NIL NIL "team" NIL)` + ann + `(NIL NIL NIL NIL)) NIL NIL NIL NIL)`, "bob@b.test", "ann@a.test"},
		{`(NIL NIL ((NIL NIL {7}` + "\r\n" + `юра1` + ` "b.test")) NIL NIL NIL NIL NIL NIL NIL)`, "юра1@b.test", ""},
		{``, "", ""}, {`(`, "", ""}, {`)`, "", ""}, {`((((((((((`, "", ""}, {`("`, "", ""}, {`({99}`, "", ""}, {`({-1}` + "\r\n", "", ""},
	} {
		from, to := envelopeAddresses(c.envelope)
		if from != c.from || to != c.to {
			t.Errorf("%s: %q, %q; want %q, %q", c.envelope, from, to, c.from, c.to)
		}
	}
}

func FuzzEnvelopeAddresses(f *testing.F) {
	f.Add(`("date" "subj" (("Ann" NIL "ann" "a.test")) NIL NIL ((NIL NIL {3}` + "\r\n" + `bob "b.test")) NIL NIL NIL "<id>")`)
	f.Add(`(((((`)
	f.Add(`("date" {7}` + "\r\n" + `su)(j" (("Ann" NIL "ann" "a.test")) NIL NIL)`) // a literal that lies about its length
	f.Fuzz(func(t *testing.T, envelope string) { envelopeAddresses(envelope) })
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"index": "1"}`))
	f.Add([]byte(`{"index": -0}`))
	f.Add([]byte(`{"name": "\ud800\u0000", "password": null}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := parseRequest(body)
		if err != nil {
			if !errors.As(err, new(refusal)) {
				t.Fatal(err)
			}
			return
		}
		if !json.Valid(body) {
			t.Fatal("taken, but not valid JSON")
		}
		_, _ = r.uid()
		_, _ = r.text("name")
		_, _, _ = r.optionalText("password")
	})
}
