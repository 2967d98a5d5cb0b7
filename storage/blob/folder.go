package blob

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A folder's directory is "." and the mailbox's levels joined by ".", each in IMAP's modified UTF-7 (RFC 3501 section
// 5.1.3): printable ASCII as it is, "&-" for "&", everything else as &…- with UTF-16 in base64. Beyond the RFC, characters
// that a level may have and a Maildir++ name may not are written as &…- too: ".", and "~", which marks a hash.

const (
	inbox = "INBOX"

	// maxFolder leaves room in the 255 bytes of a file name for what rsync and editors put around it.
	maxFolder = 200

	hashMark   = "~"
	hashDigits = 16
)

var folderBase64 = base64.NewEncoding("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+,").WithPadding(base64.NoPadding).Strict()

// FolderName makes the folder of a mailbox name: "INBOX" is "", "Sent/2024" is ".Sent.2024". INBOX counts in any case, as
// a first level too. If the name is too long (or not one that a mailbox can have) the folder's name is a prefix and a
// hash, lossy is true, and only the folder's state can tell the mailbox's name.
func FolderName(mailbox string) (folder string, lossy bool) {
	mailbox = canonical(mailbox)
	if mailbox == inbox {
		return "", false
	}
	levels := strings.Split(mailbox, "/")
	possible := utf8.ValidString(mailbox)
	var b strings.Builder
	for _, level := range levels {
		possible = possible && level != ""
		b.WriteByte('.')
		encodeLevel(&b, level)
	}
	folder = b.String()
	if possible && len(folder) <= maxFolder {
		return folder, false
	}
	sum := sha256.Sum256([]byte(mailbox))
	hash := hashMark + hex.EncodeToString(sum[:hashDigits/2])
	return folder[:min(len(folder), maxFolder-len(hash))] + hash, true
}

// MailboxName is the inverse of FolderName, and takes folder names that other programs made (raw UTF-8, a lone "&") as well
// as they can be taken. ok is false for hashed names and for those that no mailbox can have.
func MailboxName(folder string) (mailbox string, ok bool) {
	if folder == "" {
		return inbox, true
	}
	if folder[0] != '.' || !utf8.ValidString(folder) || hashed(folder) {
		return "", false
	}
	levels := strings.Split(folder[1:], ".")
	for i, level := range levels {
		if level, ok = decodeLevel(level); !ok {
			return "", false
		}
		levels[i] = level
	}
	mailbox = canonical(strings.Join(levels, "/"))
	return mailbox, mailbox != inbox
}

// canonical writes INBOX in capitals where it is the first level.
func canonical(mailbox string) string {
	if n := len(inbox); len(mailbox) >= n && strings.EqualFold(mailbox[:n], inbox) && (len(mailbox) == n || mailbox[n] == '/') {
		return inbox + mailbox[n:]
	}
	return mailbox
}

func hashed(folder string) bool {
	at := len(folder) - hashDigits - len(hashMark)
	if at < 0 || !strings.HasPrefix(folder[at:], hashMark) {
		return false
	}
	_, err := hex.DecodeString(folder[at+len(hashMark):])
	return err == nil
}

// direct reports whether a character stands for itself.
func direct(c rune) bool {
	return ' ' <= c && c <= '~' && !strings.ContainsRune("&./~", c)
}

func encodeLevel(b *strings.Builder, level string) {
	var run []rune // what waits to be escaped
	flush := func() {
		if len(run) > 0 {
			b.WriteString("&" + encodeRun(run) + "-")
			run = run[:0]
		}
	}
	for _, c := range level {
		switch {
		case c == '&':
			flush()
			b.WriteString("&-")
		case direct(c):
			flush()
			b.WriteRune(c)
		default:
			run = append(run, c)
		}
	}
	flush()
}

func encodeRun(run []rune) string {
	var wide []byte
	for _, u := range utf16.Encode(run) {
		wide = append(wide, byte(u>>8), byte(u))
	}
	return folderBase64.EncodeToString(wide)
}

// decodeLevel takes what is no escape literally. Not ok: an empty level, or one with characters no mailbox can have.
func decodeLevel(text string) (level string, ok bool) {
	var b strings.Builder
	for text != "" {
		at := strings.IndexByte(text, '&')
		if at < 0 {
			at = len(text)
		}
		b.WriteString(text[:at])
		if text = text[at:]; text == "" {
			break
		}
		escape, rest, found := strings.Cut(text[1:], "-")
		chars, valid := decodeEscape(escape)
		if !found || !valid {
			b.WriteByte('&')
			text = text[1:]
			continue
		}
		b.WriteString(chars)
		text = rest
	}
	level = b.String()
	for _, c := range level {
		if c < ' ' || c == 0x7f || c == '/' {
			return "", false
		}
	}
	return level, level != ""
}

func decodeEscape(escape string) (chars string, ok bool) {
	if escape == "" {
		return "&", true
	}
	wide, err := folderBase64.DecodeString(escape)
	if err != nil || len(wide)%2 != 0 {
		return "", false
	}
	units := make([]uint16, 0, len(wide)/2)
	for i := 0; i < len(wide); i += 2 {
		units = append(units, uint16(wide[i])<<8|uint16(wide[i+1]))
	}
	runes := utf16.Decode(units)
	// A lone surrogate decodes as U+FFFD, which would not come back.
	return string(runes), slices.Equal(utf16.Encode(runes), units)
}
