package imapd

import (
	"errors"
	"fmt"

	"mailsrv/storage"
)

// reply is the status response that ends a command: OK, NO or BAD with the command's tag, and its response code. As an
// untagged response it is a remark ("* OK [UIDNEXT 7] …").
type reply struct {
	status string // "OK", "NO", "BAD", "BYE", "PREAUTH"
	code   string // response code without its brackets: "TRYCREATE", "APPENDUID 38505 3955"; "" for none
	text   string // for people; never tells what is inside
	cause  error  // for the log only
	hangup bool   // say BYE and close after it
}

func ok(code, text string) reply { return reply{status: "OK", code: code, text: text} }
func no(code, text string) reply { return reply{status: "NO", code: code, text: text} }
func bad(text string) reply      { return reply{status: "BAD", text: text} }

// errUnframed says that the client's octets can no longer be told apart into commands: the session ends.
var errUnframed = errors.New("command too big to be skipped")

// storageCodes are the errors of storage with what the client hears. RFC 5530 has the codes.
var storageCodes = []struct {
	err  error
	code string
	text string
}{
	{storage.ErrNoMailbox, "NONEXISTENT", "No such mailbox"},
	{storage.ErrMailboxExists, "ALREADYEXISTS", "Mailbox already exists"},
	{storage.ErrCannotDelete, "CANNOT", "INBOX cannot be deleted"},
	{storage.ErrTooManyMailboxes, "LIMIT", "Too many mailboxes"},
	{storage.ErrNoMessage, "EXPUNGEISSUED", "Message is gone"},
	{storage.ErrOverQuota, "OVERQUOTA", "Quota exceeded"},
	{storage.ErrTooManyKeywords, "LIMIT", "Too many different keywords"},
	{storage.ErrDiskFull, "UNAVAILABLE", "No space left, try again later"},
}

// refused turns an error of storage into the answer to the command: its own words where there are any, else NO
// [SERVERBUG] or [UNAVAILABLE], with the cause in the log. doing names the operation, for the log.
func refused(doing string, err error) reply {
	for _, c := range storageCodes {
		if errors.Is(err, c.err) {
			return no(c.code, c.text)
		}
	}
	if errors.Is(err, storage.ErrBadMailboxName) {
		return no("CANNOT", reasonOf(err))
	}
	cause := fmt.Errorf("%s: %w", doing, err)
	if errors.Is(err, storage.ErrNoAccount) || errors.Is(err, storage.ErrClosed) {
		return reply{status: "NO", code: "UNAVAILABLE", text: "Account is not available", cause: cause, hangup: true}
	}
	return reply{status: "NO", code: "SERVERBUG", text: "Internal error, see the server's log", cause: cause}
}

// refusedDest is refused for a command whose destination mailbox may be missing: the client may create it (RFC 9051 section
// 7.1, TRYCREATE).
func refusedDest(doing string, err error) reply {
	if errors.Is(err, storage.ErrNoMailbox) {
		return no("TRYCREATE", "No such mailbox; create it first")
	}
	return refused(doing, err)
}
