package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

// An account's index.db is one ordered map of keys and values (package kv). This file draws all of it; no other
// file knows a byte of it.
//
// Numbers in keys are big-endian and of fixed width, so that they sort. In values, "uv" is an unsigned varint and "sv" a
// zig-zag varint (encoding/binary), "str" is a uv length and that many bytes, "set" is a flag set as uv: bits 0-4 are
// \Seen \Answered \Flagged \Deleted \Draft, bit 8+k is keyword k. Times are Unix seconds unless they say otherwise.
//
//	"v"                     | version u8 |                      the format's version: 1
//	"a"                     account record, below
//	"b" mailbox4            mailbox record, below
//	"c" modseq8             change log entry, below
//	"k" number1             keyword's name, number 0-55; a keyword never changes its number and is never taken back
//	"l" messageid8          | placements uv |                   only while a message has more than one placement
//	"m" messageid8          the message's summary, as package message encodes it (with a version of its own)
//	"p" mailbox4 uid4       placement, below: what never changes, and where the file is
//	"r" mailbox4 run4       rows of the UIDs with uid>>8 == run, below: what changes
//	"s" name                empty: the name is subscribed
//	"x" mailbox4 uid4       placement that was expunged and whose file may not be removed yet
//	"x" mailbox4 0          name of the folder, put aside, of a deleted mailbox that may not be removed yet
//
// Account record "a":
//
//	| last modseq uv | last message id uv | messages uv | bytes uv | last mailbox id uv | last UIDVALIDITY uv |
//	| log floor uv | log entries uv | commits uv | host str |
//
// The log reaches back to the change after log floor. The numbers given out last only ever grow, through repair and rebuild
// too. commits counts the commits, so that one in doubt can be told from one that did not happen. host stands in the
// account's file names whatever the server is called later, so that a placement need not repeat it.
//
// Mailbox record "b":
//
//	| bits u8 | name str | folder str | UIDVALIDITY uv | UIDNEXT uv | ceiling uv | highest modseq uv |
//	| messages uv | unseen uv | deleted uv | recent uv | first recent uv | bytes uv | keywords set |
//	| created sv | special use str | object id str | time of new/ sv | time of cur/ sv |
//
// bits: 1 some file names may lag behind the flags. ceiling is the UIDNEXT that the folder's state file has reserved:
// the index may count up to it without touching that file. The directories' times (Unix nanoseconds) are those at which
// the folder was known to say the same as the index, 0 if unknown; other times on the disk mean: compare.
//
// Placement "p", "x":
//
//	| bits u8 | message id uv | internal date sv | save date sv, less internal date | size uv | shown set |
//	| stem str if bit 2 | info str if bit 4 |
//
// bits: 1 the file is in new/, else in cur/; 2 its stem is not what the fields and host make (blob.FormatName);
// 4 its info is not what shown makes (blob.InfoFor; in new/ nothing). shown are the flags its name shows: they follow the
// row's lazily, and if the name shows others than shown, a foreign hand changed it.
//
// Rows "r", at most 256, ascending; absent when empty:
//
//	| n-1 u8 | base modseq uv | n times: | uid low byte u8 | flags set | modseq uv, less base | |
//
// Change log entry "c", all that one change did:
//
//	| when uv, Unix milliseconds | n uv | n times: | kind u8 | mailbox uv | body | |
//	body of 1 arrived, 2 flags changed, 3 expunged: | ranges uv | each: | first uv, less the last one's end | length-1 uv | |
//	body of 4 created, 5 deleted, 7 subscription changed: | name str |;   of 6 renamed: | name str | old name str |
//
// Version rule: whatever would make an older program misread a store raises the version; a store of a newer version is
// refused (ErrNewerFormat), one of an older version is migrated at opening. Bytes behind the fields drawn here are an error,
// as is every other damage: the index is then rebuilt from the Maildir (delete index.db), never guessed at.
//
// Beside index.db, in the Maildir, lie copies of what a rebuild needs and message files cannot say: see folder.go.
const formatVersion = 1

// ErrNewerFormat is returned on opening an account that a newer version of this program has written.
var ErrNewerFormat = errors.New("the index was written by a newer version of mailsrv")

// errDamaged is the root of what decoding can report.
var errDamaged = errors.New("index is damaged; deleting index.db rebuilds it from the Maildir")

const (
	prefixVersion    = 'v'
	prefixAccount    = 'a'
	prefixMailbox    = 'b'
	prefixChange     = 'c'
	prefixKeyword    = 'k'
	prefixLinks      = 'l'
	prefixMessage    = 'm'
	prefixPlacement  = 'p'
	prefixRows       = 'r'
	prefixSubscribed = 's'
	prefixRemoved    = 'x'
)

func keyVersion() []byte { return []byte{prefixVersion} }
func keyAccount() []byte { return []byte{prefixAccount} }

func keyMailbox(id MailboxID) []byte {
	return binary.BigEndian.AppendUint32([]byte{prefixMailbox}, uint32(id))
}

func keyChange(m ModSeq) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixChange}, uint64(m))
}

func changeOf(k []byte) ModSeq { return ModSeq(binary.BigEndian.Uint64(k[1:])) }

func keyKeyword(k int) []byte { return []byte{prefixKeyword, byte(k)} }

func keyLinks(id MessageID) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixLinks}, uint64(id))
}

func keyMessage(id MessageID) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefixMessage}, uint64(id))
}

func keySubscribed(name string) []byte { return append([]byte{prefixSubscribed}, name...) }

// key8 is a key of the kinds p, r and x.
func key8(prefix byte, id MailboxID, n uint32) []byte {
	k := make([]byte, 9)
	return appendKey8(k[:0], prefix, id, n)
}

func appendKey8(b []byte, prefix byte, id MailboxID, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(append(b, prefix), uint32(id)), n)
}

// range8 bounds all keys of a kind and a mailbox.
func range8(prefix byte, id MailboxID) (from, to []byte) {
	return key8(prefix, id, 0), key8(prefix, id+1, 0)
}

func rangeOf(prefix byte) (from, to []byte) { return []byte{prefix}, []byte{prefix + 1} }

func key8Mailbox(k []byte) MailboxID { return MailboxID(binary.BigEndian.Uint32(k[1:])) }
func key8Number(k []byte) uint32     { return binary.BigEndian.Uint32(k[5:]) }

// accountRecord is the value of "a".
type accountRecord struct {
	modSeq       ModSeq
	lastMessage  MessageID
	usage        Usage
	lastMailbox  MailboxID
	lastValidity UIDValidity
	logFloor     ModSeq
	logEntries   uint64
	commits      uint64
	host         string
}

func (r *accountRecord) encode() []byte {
	b := make([]byte, 0, 64)
	for _, n := range []uint64{uint64(r.modSeq), uint64(r.lastMessage), uint64(r.usage.Messages), uint64(r.usage.Bytes),
		uint64(r.lastMailbox), uint64(r.lastValidity), uint64(r.logFloor), r.logEntries, r.commits} {
		b = binary.AppendUvarint(b, n)
	}
	return kv.AppendText(b, r.host)
}

func decodeAccount(b []byte) (accountRecord, error) {
	d := decoder{kv.Value{Rest: b}}
	r := accountRecord{
		modSeq:       ModSeq(d.Uint()),
		lastMessage:  MessageID(d.Uint()),
		usage:        Usage{Messages: int64(d.Uint()), Bytes: int64(d.Uint())},
		lastMailbox:  MailboxID(d.uint32()),
		lastValidity: UIDValidity(d.uint32()),
		logFloor:     ModSeq(d.Uint()),
		logEntries:   d.Uint(),
		commits:      d.Uint(),
		host:         d.Text(),
	}
	return r, d.end("account record")
}

// mailboxRecord is the value of "b". Mailbox.Subscribed is not in it.
type mailboxRecord struct {
	Mailbox
	folder      string
	ceiling     UID
	firstRecent UID
	lagging     bool
	newTime     int64
	curTime     int64
	reserved    bool // not in the value: during a rebuild, UIDs below ceiling may have been seen
}

const bitLagging = 1

func (r *mailboxRecord) encode() []byte {
	b := make([]byte, 0, 192)
	var bits byte
	if r.lagging {
		bits |= bitLagging
	}
	b = append(b, bits)
	b = kv.AppendText(b, r.Name)
	b = kv.AppendText(b, r.folder)
	for _, n := range []uint64{uint64(r.UIDValidity), uint64(r.UIDNext), uint64(r.ceiling), uint64(r.HighestModSeq),
		uint64(r.Messages), uint64(r.Unseen), uint64(r.Deleted), uint64(r.Recent), uint64(r.firstRecent),
		uint64(r.Size), uint64(r.Keywords)} {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendVarint(b, r.Created.Unix())
	b = kv.AppendText(b, r.SpecialUse)
	b = kv.AppendText(b, r.ObjectID)
	b = binary.AppendVarint(b, r.newTime)
	return binary.AppendVarint(b, r.curTime)
}

func decodeMailbox(key, b []byte) (mailboxRecord, error) {
	d := decoder{kv.Value{Rest: b}}
	var r mailboxRecord
	if len(key) != 5 {
		return r, fmt.Errorf("%w: mailbox key %x", errDamaged, key)
	}
	r.ID = MailboxID(binary.BigEndian.Uint32(key[1:]))
	r.lagging = d.Byte(0xff)&bitLagging != 0
	r.Name = d.Text()
	r.folder = d.Text()
	r.UIDValidity = UIDValidity(d.uint32())
	r.UIDNext = UID(d.uint32())
	r.ceiling = UID(d.uint32())
	r.HighestModSeq = ModSeq(d.Uint())
	r.Messages = d.uint32()
	r.Unseen = d.uint32()
	r.Deleted = d.uint32()
	r.Recent = d.uint32()
	r.firstRecent = UID(d.uint32())
	r.Size = int64(d.Uint())
	r.Keywords = Flags(d.Uint())
	r.Created = time.Unix(d.Int(), 0)
	r.SpecialUse = d.Text()
	r.ObjectID = d.Text()
	r.newTime = d.Int()
	r.curTime = d.Int()
	return r, d.end("mailbox record")
}

// placement is the value of "p" and "x".
type placement struct {
	id       MessageID
	internal int64 // Unix seconds
	saved    int64
	size     int64
	shown    Flags
	inNew    bool
	stem     string // "": what the fields make
	info     string // only if odd
	odd      bool   // info is not what shown makes
}

const (
	bitInNew = 1 << iota
	bitStem
	bitInfo
)

func (p *placement) append(b []byte) []byte {
	var bits byte
	if p.inNew {
		bits |= bitInNew
	}
	if p.stem != "" {
		bits |= bitStem
	}
	if p.odd {
		bits |= bitInfo
	}
	b = binary.AppendUvarint(append(b, bits), uint64(p.id))
	b = binary.AppendVarint(b, p.internal)
	b = binary.AppendVarint(b, p.saved-p.internal)
	b = binary.AppendUvarint(b, uint64(p.size))
	b = binary.AppendUvarint(b, uint64(p.shown))
	if p.stem != "" {
		b = kv.AppendText(b, p.stem)
	}
	if p.odd {
		b = kv.AppendText(b, p.info)
	}
	return b
}

func decodePlacement(b []byte) (placement, error) {
	d := decoder{kv.Value{Rest: b}}
	bits := d.Byte(0xff)
	p := placement{
		inNew:    bits&bitInNew != 0,
		odd:      bits&bitInfo != 0,
		id:       MessageID(d.Uint()),
		internal: d.Int(),
	}
	p.saved = p.internal + d.Int()
	p.size = int64(d.Uint())
	p.shown = Flags(d.Uint())
	if bits&bitStem != 0 {
		p.stem = d.Text()
	}
	if p.odd {
		p.info = d.Text()
	}
	return p, d.end("placement")
}

// entry is the placement's file.
func (p *placement) entry(host string, uid UID) blob.Entry {
	e := blob.Entry{New: p.inNew, Stem: p.stem, Info: p.info}
	if e.Stem == "" {
		e.Stem = ourStem(p, host, uid)
	}
	if !p.odd && !p.inNew {
		e.Info = blob.InfoFor(uint64(p.shown))
	}
	return e
}

func ourStem(p *placement, host string, uid UID) string {
	return blob.FormatName(blob.Name{Seconds: p.internal, ID: uint64(p.id), Host: host, Size: p.size, UID: uint32(uid)})
}

// showsAt makes the placement say that its file is e.
func (p *placement) showsAt(e blob.Entry, host string, uid UID) {
	shown, _ := blob.FlagsOf(e.Info)
	p.inNew, p.shown, p.stem, p.info, p.odd = e.New, Flags(shown), "", "", false
	if e.Stem != ourStem(p, host, uid) {
		p.stem = e.Stem
	}
	if p.entry(host, uid) != e {
		p.info, p.odd = e.Info, true
	}
}

// appendRows encodes a chunk's rows, of which there is at least one.
func appendRows(b []byte, rows []Row) []byte {
	base := rows[0].ModSeq
	for _, r := range rows {
		base = min(base, r.ModSeq)
	}
	b = binary.AppendUvarint(append(b, byte(len(rows)-1)), uint64(base))
	for _, r := range rows {
		b = append(b, byte(r.UID))
		b = binary.AppendUvarint(b, uint64(r.Flags))
		b = binary.AppendUvarint(b, uint64(r.ModSeq-base))
	}
	return b
}

func decodeRows(run uint32, b []byte) (*chunk, error) {
	d := decoder{kv.Value{Rest: b}}
	rows := make([]Row, int(d.Byte(0xff))+1)
	base := ModSeq(d.Uint())
	for i := range rows {
		uid := UID(run<<8 | uint32(d.Byte(0xff)))
		rows[i] = Row{UID: uid, Flags: Flags(d.Uint()), ModSeq: base + ModSeq(d.Uint())}
		if i > 0 && uid <= rows[i-1].UID {
			return nil, fmt.Errorf("%w: rows out of order", errDamaged)
		}
	}
	return &chunk{run, rows}, d.end("rows")
}

// appendChange encodes what one modseq did.
func appendChange(b []byte, when time.Time, events []Change) []byte {
	b = binary.AppendUvarint(b, uint64(max(0, when.UnixMilli())))
	b = binary.AppendUvarint(b, uint64(len(events)))
	for _, e := range events {
		b = binary.AppendUvarint(append(b, byte(e.Kind)), uint64(e.Mailbox))
		switch e.Kind {
		case Arrived, FlagsChanged, Expunged:
			b = appendRanges(b, e.UIDs)
		case MailboxRenamed:
			b = kv.AppendText(kv.AppendText(b, e.Name), e.OldName)
		default:
			b = kv.AppendText(b, e.Name)
		}
	}
	return b
}

func appendRanges(b []byte, ranges []UIDRange) []byte {
	b = binary.AppendUvarint(b, uint64(len(ranges)))
	var end UID
	for _, r := range ranges {
		b = binary.AppendUvarint(b, uint64(r.First-end))
		b = binary.AppendUvarint(b, uint64(r.Last-r.First))
		end = r.Last
	}
	return b
}

func decodeChange(key, b []byte) ([]Change, error) {
	if len(key) != 9 {
		return nil, fmt.Errorf("%w: change key %x", errDamaged, key)
	}
	d := decoder{kv.Value{Rest: b}}
	when := time.UnixMilli(int64(d.Uint()))
	events := make([]Change, d.Count(2))
	for i := range events {
		e := &events[i]
		e.ModSeq, e.When = ModSeq(binary.BigEndian.Uint64(key[1:])), when
		e.Kind, e.Mailbox = ChangeKind(d.Byte(0xff)), MailboxID(d.uint32())
		switch e.Kind {
		case Arrived, FlagsChanged, Expunged:
			e.UIDs = d.ranges()
		case MailboxRenamed:
			e.Name, e.OldName = d.Text(), d.Text()
		case MailboxCreated, MailboxDeleted, SubscriptionChanged:
			e.Name = d.Text()
		default:
			d.Bad = true
		}
	}
	return events, d.end("change")
}

// decoder reads a value; the first thing that is wrong sticks and is reported by end.
type decoder struct{ kv.Value }

func (d *decoder) uint32() uint32 { return uint32(d.Below(1 << 32)) }

func (d *decoder) ranges() []UIDRange {
	ranges := make([]UIDRange, d.Count(2))
	var end uint64
	for i := range ranges {
		first := end + d.Uint()
		end = first + d.Uint()
		if end > 1<<32-1 {
			d.Bad = true
		}
		ranges[i] = UIDRange{UID(first), UID(end)}
	}
	return ranges
}

func (d *decoder) end(what string) error {
	if !d.Whole() {
		return fmt.Errorf("%w: %s", errDamaged, what)
	}
	return nil
}
