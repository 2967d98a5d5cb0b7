package message

import "strings"

// listedNames are the fields that mail programs ask for when they list a mailbox or file its messages (Thunderbird, mutt, K-9, Roundcube,
// mbsync …), in lower case. Long ones that few ask for (DKIM-Signature, Authentication-Results) are not worth their room. The
// list belongs to the summary's version: what an older list left out is not known to be missing.
var listedNames = map[string]struct{}{
	"from": {}, "sender": {}, "reply-to": {}, "to": {}, "cc": {}, "bcc": {}, "subject": {}, "date": {},
	"message-id": {}, "in-reply-to": {}, "references": {}, "newsgroups": {}, "followup-to": {},
	"content-type": {}, "content-description": {}, "content-transfer-encoding": {}, "mime-version": {}, "lines": {},
	"priority": {}, "x-priority": {}, "importance": {}, "x-label": {}, "x-tuid": {}, "x-draft-info": {},
	"list-id": {}, "list-post": {}, "list-subscribe": {}, "list-unsubscribe": {}, "precedence": {}, "auto-submitted": {},
	"mail-reply-to": {}, "mail-followup-to": {}, "disposition-notification-to": {}, "return-receipt-to": {},
	"x-original-to": {}, "delivered-to": {}, "resent-from": {}, "resent-to": {}, "resent-date": {}, "organization": {},
	"x-uniform-type-identifier": {}, "x-universally-unique-identifier": {}, "x-k9mail-identity": {},
	"received": {},
}

const maxListedName = 31

// Listed reports whether a field of that name, in any case, is in [Summary.Fields] if the message has it.
func Listed(name string) bool {
	if len(name) > maxListedName {
		return false
	}
	_, is := listedNames[strings.ToLower(name)]
	return is
}

// listedFields are the listed fields of a header block, and the blank line; "" if they are too long.
func listedFields(block, blank []byte) string {
	var out []byte
	Fields(block, func(name string, raw []byte) bool {
		if Listed(name) {
			out = append(out, raw...)
		}
		return len(out) <= maxFields
	})
	if len(out) > maxFields {
		return ""
	}
	return string(append(out, blank...))
}
