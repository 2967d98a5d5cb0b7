package message

import (
	"strings"
	"testing"
	"time"
)

func TestDecodeHeader(t *testing.T) {
	for in, want := range map[string]string{
		"plain":                                "plain",
		"":                                     "",
		"=?utf-8?q?caf=C3=A9?=":                "café",
		"=?UTF-8?Q?a_b?=":                      "a b",
		"=?utf-8?B?w6k=?=":                     "é",
		"=?utf-8?B?w6k?=":                      "é", // no padding
		"=?utf-8?b?w 6k=?=":                    "é", // junk
		"=?utf-8*en?q?x?=":                     "x",
		"a =?utf-8?q?b?= c":                    "a b c",
		"=?utf-8?q?a?= =?utf-8?q?b?=":          "ab",
		"=?utf-8?q?a?=\t =?iso-8859-1?q?=E9?=": "aé",
		"=?utf-8?q?a?= b =?utf-8?q?c?=":        "a b c",
		"=?utf-8?q?a?=b":                       "ab",
		"=?utf-8?q?=C3?= =?UTF-8?q?=A9?=":      "é", // a character split
		"=?utf-8?b?ww==?= =?utf-8?b?qQ==?=":    "é",
		"=?utf-8?q?=C3?= =?iso-8859-1?q?=A9?=": "\uFFFD©",
		"=?iso-8859-1?q?=80?=":                 "€", // windows-1252 in disguise
		"=?us-ascii?q?=E9?=":                   "é",
		"=?x-unknown-9?q?a=41?=":               "=?x-unknown-9?q?a=41?=",
		"=?x-unknown-9?q?=41?= =?utf-8?q?b?=":  "=?x-unknown-9?q?=41?= b",
		"=?utf-8?x?a?=":                        "=?x-unknown?x?a?=",
		"=?utf-8?q?a":                          "=?utf-8?q?a",
		"=?":                                   "=?",
		"=?=?=?=?":                             "=?=?=?=?",
		"x =?= =?utf-8?q?y?=":                  "x =?= y",
		"=?utf-8?q?=4?=":                       "=4",
		"=?utf-8?q?=zz?=":                      "=zz",
		"=?utf-8?q??=":                         "",
		"=?koi8-r?B?8NLJ18XU?=":                "Привет",
		"=?iso-2022-jp?B?GyRCMnE1RBsoQg==?=":   "会議",
		"=?gb2312?B?xOO6ww==?=":                "你好",
		"=?ks_c_5601-1987?B?vsiz5w==?=":        "안녕",
		"=?utf-7?q?+AOk-?=":                    "é",
		"=?ibm437?q?=82?=":                     "é",
		"=?cp1252?q?=80?=":                     "€",
		"caf\xe9":                              "café",
		"café \xe9":                            "café é",
		"a\x00b":                               "a\x00b",
	} {
		if in == "=?utf-8?x?a?=" {
			want = in
		}
		if got := DecodeHeader(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestParseDate(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for in, want := range map[string]struct {
		at  string
		day int
	}{
		"Mon, 7 Oct 2024 10:15:00 +0200":          {"2024-10-07T10:15:00+02:00", 20241007},
		"7 Oct 2024 10:15 +0200":                  {"2024-10-07T10:15:00+02:00", 20241007},
		"Mon,7 Oct 2024 10:15:00 +0200":           {"2024-10-07T10:15:00+02:00", 20241007},
		"Mon, 07 Oct 2024 23:30:00 -0800 (PST)":   {"2024-10-07T23:30:00-08:00", 20241007}, // as written
		"Mon (day) , 7 (d) Oct 2024 10:15:00 GMT": {"2024-10-07T10:15:00Z", 20241007},
		"Fri, 21 Nov 97 09:55:06 EST":             {"1997-11-21T09:55:06-05:00", 19971121},
		"21 Nov 49 09:55:06 PDT":                  {"2049-11-21T09:55:06-07:00", 20491121},
		"21 Nov 50 09:55:06 Z":                    {"1950-11-21T09:55:06Z", 19501121},
		"21 Nov 100 09:55:06 UT":                  {"2000-11-21T09:55:06Z", 20001121},
		"Thu, 29 Feb 2024 23:59:60 +0000":         {"2024-02-29T23:59:59Z", 20240229},
		"Tuesday, 14-Jun-94 12:00:00 PDT":         {"1994-06-14T12:00:00-07:00", 19940614},
		"Tue Jun 14 12:00:00 1994":                {"1994-06-14T12:00:00Z", 19940614},
		"Tue Jun 14 12:00:00 EST 1994":            {"1994-06-14T12:00:00-05:00", 19940614},
		"2024-10-07T10:15:00+02:00":               {"2024-10-07T10:15:00+02:00", 20241007},
		"2024-10-07 10:15:00.5Z":                  {"2024-10-07T10:15:00Z", 20241007},
		"7 October 2024":                          {"2024-10-07T00:00:00Z", 20241007},
		"7 Oct 2024 10:15:00 GMT+0100":            {"2024-10-07T10:15:00+01:00", 20241007},
		"7 Oct 2024 10:15:00 X":                   {"2024-10-07T10:15:00Z", 20241007},
		"7 Oct 2024 10:15:00 +9999":               {"2024-10-07T10:15:00Z", 20241007},
		"7 Oct 2024 99:15:00 +0000":               {"2024-10-07T00:00:00Z", 20241007},
		"":                                        {},
		"garbage":                                 {},
		"31 Feb 2024 10:00:00 +0000":              {},
		"Mon, 7 Oct":                              {},
		"99 Oct 2024":                             {},
		"1-2-3-4-5":                               {},
		strings.Repeat("1 ", 1000):                {},
		"(7 Oct 2024":                             {},
	} {
		got, day := parseDate(in)
		var instant time.Time
		if want.at != "" {
			instant = at(want.at)
		}
		_, zone := got.Zone()
		_, wantZone := instant.Zone()
		if !got.Equal(instant) || day != want.day || zone != wantZone {
			t.Errorf("%q: got %v %d, want %v %d", in, got, day, instant, want.day)
		}
	}
}

func TestMessageIDs(t *testing.T) {
	for in, want := range map[string]string{
		"<a@b>":                               "a@b",
		"<a@b> <c@d>\t<e@f>":                  "a@b c@d e@f",
		"<a@b><c@d>":                          "a@b c@d",
		"<a @b>":                              "a@b",
		"Your message of \"x\" <a@b>.":        "a@b",
		"a@b":                                 "a@b",
		"a b":                                 "",
		"<a@b":                                "a@b",
		"<<a@b>>":                             "a@b",
		"<> <a@b>":                            "a@b",
		"":                                    "",
		"<" + strings.Repeat("x", 3000) + ">": "",
	} {
		if got := strings.Join(messageIDs(in, 10), " "); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	ids := messageIDs("<0> <1> <2> <3> <4> <5>", 3)
	if strings.Join(ids, " ") != "0 4 5" {
		t.Errorf("bounded: %q", ids)
	}
}

func TestFields(t *testing.T) {
	header := "A: 1\r\n 2\r\njunk\r\n more\r\nB : 3\n\t4\nc:\r\n\r\nD: body\r\n"
	var got []string
	Fields([]byte(header), func(name string, raw []byte) bool {
		got = append(got, name+"="+string(raw))
		return true
	})
	want := "A=A: 1\r\n 2\r\n|B=B : 3\n\t4\n|c=c:\r\n"
	if strings.Join(got, "|") != want {
		t.Errorf("got %q, want %q", got, want)
	}
	n := 0
	Fields([]byte(header), func(string, []byte) bool { n++; return n < 2 })
	if n != 2 {
		t.Errorf("called %d times after it said stop at 2", n)
	}
}
