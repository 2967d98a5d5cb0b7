package message

import (
	"strconv"
	"strings"
	"time"
)

// parseDate reads a Date field (RFC 5322 section 3.3, obsolete forms of 4.3, and what else is seen: no day of the week, no
// seconds, ISO 8601, asctime, names in full). day is the date as written, YYYYMMDD. Both are zero if there is no date.
func parseDate(v string) (t time.Time, day int) {
	f := dateFields{year: -1}
	for _, word := range dateWords(cut(v, 200)) {
		f.take(word)
	}
	if f.day == 0 || f.month == 0 || f.year < 0 {
		return time.Time{}, 0
	}
	t = time.Date(f.year, f.month, f.day, f.hour, f.minute, min(f.second, 59), 0, zoneOf(f.offset))
	if t.Day() != f.day || t.Month() != f.month {
		return time.Time{}, 0 // 31 February
	}
	return t, dayNumber(t)
}

// dateWords splits at white space, commas and comments.
func dateWords(v string) []string {
	var words []string
	p := paramParser{v}
	for {
		p.skipSpace()
		if p.s == "" {
			return words
		}
		if w := p.until(" \t\r\n,("); w != "" {
			words = append(words, w)
		} else if p.s != "" && p.s[0] == ',' {
			p.s = p.s[1:]
		}
	}
}

type dateFields struct {
	day, year            int
	month                time.Month
	hour, minute, second int
	timed, zoned         bool
	offset               int // seconds east
}

// take finds out what a word is by its form, and by what is known already.
func (f *dateFields) take(w string) {
	switch {
	case f.day == 0 && f.takeDate(w):
	case strings.Contains(w, ":") && !f.timed:
		f.takeTime(w)
	case f.month == 0 && len(w) >= 3 && monthOf(w) != 0:
		f.month = monthOf(w)
	case isDigits(w) && f.day == 0 && len(w) <= 2:
		f.day, _ = strconv.Atoi(w)
	case isDigits(w) && f.month != 0 && f.year < 0 && len(w) <= 4 && len(w) >= 2:
		f.year = fullYear(w)
	case f.timed && !f.zoned:
		f.takeZone(w)
	}
}

func isDigits(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// fullYear: two digits are 1950 … 2049, three count from 1900 (RFC 5322 section 4.3).
func fullYear(w string) int {
	y, _ := strconv.Atoi(w)
	switch {
	case len(w) == 2 && y < 50:
		return 2000 + y
	case len(w) < 4:
		return 1900 + y
	}
	return y
}

func monthOf(w string) time.Month {
	for m := time.January; m <= time.December; m++ {
		if name := m.String(); len(w) >= 3 && len(w) <= len(name) && strings.EqualFold(name[:len(w)], w) {
			return m
		}
	}
	return 0
}

// takeDate reads a date in one word: 21-Nov-97, 1997-11-21, 1997-11-21T09:55:06Z.
func (f *dateFields) takeDate(w string) bool {
	date, clock := w, ""
	if len(w) > len("1997-11-21") && w[10]|0x20 == 't' {
		date, clock = w[:10], w[11:]
	}
	parts := strings.Split(date, "-")
	if len(parts) != 3 || f.month != 0 {
		return false
	}
	year, month, day := parts[0], parts[1], parts[2]
	if len(year) != 4 {
		year, day = day, year
	}
	m := monthOf(month)
	if m == 0 && isDigits(month) && len(parts[0]) == 4 {
		n, _ := strconv.Atoi(month)
		m = time.Month(n)
	}
	if !isDigits(year) || len(year) > 4 || !isDigits(day) || len(day) > 2 || m < 1 || m > 12 {
		return false
	}
	f.month, f.year = m, fullYear(year)
	f.day, _ = strconv.Atoi(day)
	if clock != "" {
		f.takeTime(clock)
	}
	return true
}

// takeTime reads hh:mm[:ss[.frac]][zone].
func (f *dateFields) takeTime(w string) {
	end := 0
	for end < len(w) && (w[end] >= '0' && w[end] <= '9' || w[end] == ':' || w[end] == '.') {
		end++
	}
	parts := strings.Split(w[:end], ":")
	if len(parts) < 2 || len(parts) > 3 {
		return
	}
	var n [3]int
	for i, part := range parts {
		part, _, _ = strings.Cut(part, ".")
		v, err := strconv.Atoi(part)
		if err != nil || len(part) > 2 {
			return
		}
		n[i] = v
	}
	if n[0] > 23 || n[1] > 59 || n[2] > 60 {
		return
	}
	f.timed, f.hour, f.minute, f.second = true, n[0], n[1], n[2]
	if end < len(w) {
		f.takeZone(w[end:])
	}
}

// takeZone reads +hhmm, +hh:mm, GMT+hhmm, or a name (RFC 5322 section 4.3: unknown names are -0000).
func (f *dateFields) takeZone(w string) {
	f.zoned = true
	w = strings.ToUpper(w)
	switch w {
	case "EDT":
		f.offset = -4 * 3600
	case "EST", "CDT":
		f.offset = -5 * 3600
	case "CST", "MDT":
		f.offset = -6 * 3600
	case "MST", "PDT":
		f.offset = -7 * 3600
	case "PST":
		f.offset = -8 * 3600
	case "CET", "BST", "MEZ":
		f.offset = 3600
	case "CEST", "MESZ", "EET":
		f.offset = 2 * 3600
	case "MSK", "EEST":
		f.offset = 3 * 3600
	case "JST", "KST":
		f.offset = 9 * 3600
	}
	i := strings.IndexAny(w, "+-")
	if i < 0 {
		return
	}
	digits := strings.ReplaceAll(w[i+1:], ":", "")
	if len(digits) != 4 || !isDigits(digits) {
		return
	}
	n, _ := strconv.Atoi(digits)
	if f.offset = (n/100*60 + n%100) * 60; n/100 > 24 {
		f.offset = 0
	}
	if w[i] == '-' {
		f.offset = -f.offset
	}
}
