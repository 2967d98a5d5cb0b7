package legacyd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"mailsrv/storage"
)

// maxDepth bounds the nesting of a request's JSON; ours have depth 1.
const maxDepth = 16

// request is the JSON object of a request. Keys are matched exactly: encoding/json's struct decoding would take "NAME" for
// "name".
type request map[string]json.RawMessage

// parseRequest reads a body that must be a JSON object.
func parseRequest(body []byte) (request, error) {
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	if b := bytes.TrimLeft(body, " \t\r\n"); len(b) == 0 || b[0] != '{' {
		return nil, refuse("Request body must be a JSON object")
	}
	var r request
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, refuse("Request body is not valid JSON")
	}
	return r, nil
}

// checkJSON says whether the body is JSON in UTF-8 of a sensible depth.
func checkJSON(body []byte) error {
	if !utf8.Valid(body) {
		return refuse("Request body is not UTF-8")
	}
	depth, inString := 0, false
	for i := 0; i < len(body); i++ {
		switch c := body[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			if depth++; depth > maxDepth {
				return refuse("Request body is nested too deeply")
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	if !json.Valid(body) {
		return refuse("Request body is not valid JSON")
	}
	return nil
}

// text returns a key that must be a string.
func (r request) text(key string) (string, error) {
	raw, ok := r[key]
	if !ok {
		return "", refuse(fmt.Sprintf("Request lacks %q", key))
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return "", refuse(fmt.Sprintf("%q must be a string", key))
	}
	return *s, nil
}

// optionalText is text for a key that may be absent or null.
func (r request) optionalText(key string) (s string, present bool, err error) {
	if raw, ok := r[key]; !ok || string(raw) == "null" {
		return "", false, nil
	}
	s, err = r.text(key)
	return s, err == nil, err
}

// uid returns "index" as the UID it names; 0, which is no mail's, for whatever names none.
func (r request) uid() (storage.UID, error) {
	raw, ok := r["index"]
	if !ok {
		return 0, refuse(`Request lacks "index"`)
	}
	switch raw[0] {
	case '"':
		s, err := r.text("index")
		if err != nil {
			return 0, err
		}
		return digits(s), nil
	case '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9':
		if u := digits(string(raw)); u != 0 {
			return u, nil
		}
		// Some languages have only floating numbers and write 1 as 1.0 or 1e0.
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || f != math.Trunc(f) || f < 1 || f > math.MaxUint32 {
			return 0, nil
		}
		return storage.UID(f), nil
	}
	return 0, refuse(`"index" must be a string of digits or a number`)
}

// digits reads a decimal number of ASCII digits; 0 for everything else.
func digits(s string) storage.UID {
	u, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return storage.UID(u)
}
