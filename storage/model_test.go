package storage

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"mailsrv/storage/blob"
	"mailsrv/storage/kv"
)

var (
	modelOps  = flag.Int("model.ops", 150, "operations of each model test")
	modelSeed = flag.Uint64("model.seed", 0, "run the model test with this seed alone")
)

// The model is what an account is to its users, as plain maps.
type modelMessage struct {
	text  string
	flags map[string]bool
	date  int64
	msgID MessageID
}

type modelBox struct {
	id       MailboxID
	validity UIDValidity
	next     UID // UIDNEXT is at least this
	modseq   ModSeq
	msgs     map[UID]*modelMessage
	seen     *View // an older view, to test Diff with
}

type modelAccount struct {
	boxes map[string]*modelBox
	subs  map[string]bool
	log   ModSeq // read up to here
}

// model runs random operations against a store and against the maps.
type model struct {
	*testing.T
	rnd      *rand.Rand
	dir      string
	now      time.Time
	store    *Store
	open     map[string]*Account
	accounts map[string]*modelAccount
	serial   int
}

func TestModel(t *testing.T) {
	seeds := []uint64{1, 2}
	if *modelSeed != 0 {
		seeds = []uint64{*modelSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &model{T: t, rnd: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), now: time.Now().Truncate(time.Second),
				open: map[string]*Account{}, accounts: map[string]*modelAccount{}}
			m.reopen()
			for _, address := range []string{"alice@example.test", "bob@example.test"} {
				if err := m.store.Create(address); err != nil {
					t.Fatal(err)
				}
				m.adopt(address)
			}
			for i := range *modelOps {
				op, address := m.step()
				for name := range m.accounts {
					if name == address || address == "" {
						m.compare(name)
					}
				}
				if t.Failed() {
					t.Fatalf("seed %d, operation %d: %s", seed, i, op)
				}
			}
			m.close()
		})
	}
}

func (m *model) close() {
	for _, a := range m.open {
		a.Release()
	}
	clear(m.open)
	if m.store != nil {
		if err := m.store.Close(); err != nil {
			m.Error(err)
		}
	}
}

func (m *model) reopen() {
	m.close()
	var err error
	m.store, err = Open(Options{Dir: m.dir, Reserve: 1, Now: func() time.Time { return m.now }})
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) account(address string) *Account {
	if a := m.open[address]; a != nil {
		return a
	}
	a, err := m.store.Account(address)
	if err != nil {
		m.Fatal(err)
	}
	m.open[address] = a
	return a
}

// adopt takes a new account's mailboxes into the model.
func (m *model) adopt(address string) {
	ma := &modelAccount{boxes: map[string]*modelBox{}, subs: map[string]bool{}}
	m.accounts[address] = ma
	list, err := m.account(address).Mailboxes()
	if err != nil {
		m.Fatal(err)
	}
	for _, b := range list {
		ma.boxes[b.Name] = &modelBox{id: b.ID, validity: b.UIDValidity, next: 1, msgs: map[UID]*modelMessage{}}
		ma.subs[b.Name] = true
	}
}

func pick[K comparable, V any](r *rand.Rand, set map[K]V, less func(a, b K) int) K {
	keys := slices.SortedFunc(maps.Keys(set), less)
	return keys[r.IntN(len(keys))]
}

func (m *model) anyBox(ma *modelAccount) string { return pick(m.rnd, ma.boxes, strings.Compare) }

func (m *model) anyUIDs(b *modelBox) []UID {
	var uids []UID
	for _, u := range slices.Sorted(maps.Keys(b.msgs)) {
		if m.rnd.IntN(3) > 0 {
			uids = append(uids, u)
		}
	}
	if m.rnd.IntN(5) == 0 {
		uids = append(uids, b.next+1000_000) // one that is not there
	}
	return uids
}

func (m *model) anyFlags() []string {
	all := []string{`\Seen`, `\Answered`, `\Flagged`, `\Deleted`, `\Draft`, "$Forwarded", "$Junk", "ProjectX", "ü", "a"}
	var some []string
	for _, f := range all {
		if m.rnd.IntN(3) == 0 {
			some = append(some, f)
		}
	}
	return some
}

func flagMap(names []string) map[string]bool {
	f := map[string]bool{}
	for _, n := range names {
		f[n] = true
	}
	return f
}

// step does one operation; it returns what and whose ("" everybody's).
func (m *model) step() (op, address string) {
	m.now = m.now.Add(time.Duration(1+m.rnd.IntN(5)) * time.Second)
	address = pick(m.rnd, m.accounts, strings.Compare)
	a, ma := m.account(address), m.accounts[address]
	name := m.anyBox(ma)
	b := ma.boxes[name]
	switch n := m.rnd.IntN(100); {
	case n < 25:
		m.append(address, name)
		return "append", ""
	case n < 42:
		m.flag(a, b)
		return "store " + name, address
	case n < 52:
		m.transfer(a, ma, b, m.rnd.IntN(2) == 0)
		return "transfer " + name, address
	case n < 60:
		m.expunge(a, b)
		return "expunge " + name, address
	case n < 66:
		m.create(a, ma)
		return "create", address
	case n < 69:
		m.delete(a, ma, name)
		return "delete " + name, address
	case n < 74:
		m.rename(a, ma, name)
		return "rename " + name, address
	case n < 77:
		on := m.rnd.IntN(2) == 0
		if err := a.Subscribe(name, on); err != nil {
			m.Error(err)
		}
		delete(ma.subs, name)
		if on {
			ma.subs[name] = true
		}
		return "subscribe", address
	case n < 80:
		if _, err := a.ClaimRecent(b.id); err != nil {
			m.Error(err)
		}
		return "claim", address
	case n < 84:
		m.Helper()
		if err := a.tidyUp(); err != nil {
			m.Error(err)
		}
		return "tidy", address
	case n < 91:
		return "foreign " + m.foreign(a, b), address
	case n < 96:
		m.reopen()
		return "reopen", ""
	default:
		m.rebuild()
		return "rebuild", ""
	}
}

// append files one to three messages, the first of them for several accounts.
func (m *model) append(address, name string) {
	var msgs []NewMessage
	var made []*modelMessage
	for range 1 + m.rnd.IntN(3) {
		m.serial++
		text := mailText(fmt.Sprintf("m%d", m.serial)) + strings.Repeat("x", m.rnd.IntN(2000)) + "\r\n"
		mm := &modelMessage{text: text, date: m.now.Unix()}
		flags := m.anyFlags()
		nm := NewMessage{Incoming: incoming(m, m.store, text), Flags: flags}
		if m.rnd.IntN(3) == 0 {
			mm.date -= int64(m.rnd.IntN(1_000_000_000))
			nm.InternalDate = time.Unix(mm.date, 0)
		}
		mm.flags = flagMap(flags)
		msgs, made = append(msgs, nm), append(made, mm)
	}
	m.appendTo(address, name, msgs, made)
	if m.rnd.IntN(3) == 0 {
		for other := range m.accounts {
			if other != address {
				m.appendTo(other, inbox, msgs, made)
			}
		}
	}
	for _, nm := range msgs {
		if err := nm.Incoming.Close(); err != nil {
			m.Error(err)
		}
	}
}

func (m *model) appendTo(address, name string, msgs []NewMessage, made []*modelMessage) {
	c, err := m.account(address).Append(name, msgs...)
	if err != nil {
		m.Fatal(err)
	}
	m.arrived(m.accounts[address].boxes[name], c, made)
}

func (m *model) arrived(b *modelBox, c Copied, made []*modelMessage) {
	if c.UIDValidity != b.validity || len(c.Dest) != len(made) {
		m.Fatalf("result %+v for %d messages, UIDVALIDITY %d", c, len(made), b.validity)
	}
	for i, u := range c.Dest {
		if u < b.next {
			m.Fatalf("UID %d after UIDNEXT %d", u, b.next)
		}
		b.next = u + 1
		mm := *made[i]
		mm.flags = maps.Clone(mm.flags)
		b.msgs[u] = &mm
	}
}

func (m *model) flag(a *Account, b *modelBox) {
	uids, names := m.anyUIDs(b), m.anyFlags()
	change := FlagChange{Op: FlagOp(m.rnd.IntN(3)), Flags: names}
	v, err := a.View(b.id)
	if err != nil {
		m.Fatal(err)
	}
	if m.rnd.IntN(3) == 0 && v.Len() > 0 {
		change.Conditional, change.UnchangedSince = true, v.At(m.rnd.IntN(v.Len())).ModSeq
	}
	out, err := a.Store(b.id, uids, change)
	if err != nil {
		m.Fatal(err)
	}
	for _, u := range uids {
		mm := b.msgs[u]
		i, found := v.Find(u)
		switch {
		case mm == nil:
			if !slices.Contains(out.Missing, u) {
				m.Errorf("UID %d not reported missing", u)
			}
			continue
		case !found:
			m.Fatalf("UID %d not in view", u)
		case change.Conditional && v.At(i).ModSeq > change.UnchangedSince:
			if !slices.Contains(out.Modified, u) {
				m.Errorf("UID %d not reported modified", u)
			}
			continue
		}
		before := maps.Clone(mm.flags)
		switch change.Op {
		case SetFlags:
			mm.flags = flagMap(names)
		case AddFlags:
			maps.Copy(mm.flags, flagMap(names))
		case RemoveFlags:
			maps.DeleteFunc(mm.flags, func(f string, _ bool) bool { return slices.Contains(names, f) })
		}
		listed := slices.ContainsFunc(out.Changed, func(r Row) bool { return r.UID == u && r.ModSeq == out.ModSeq })
		if changed := !maps.Equal(before, mm.flags); changed != listed {
			m.Errorf("UID %d: changed %v, listed %v in %+v", u, changed, listed, out)
		}
	}
}

func (m *model) transfer(a *Account, ma *modelAccount, b *modelBox, move bool) {
	dest := ma.boxes[m.anyBox(ma)]
	uids := m.anyUIDs(b)
	var live []UID
	var made []*modelMessage
	for _, u := range uids {
		if mm := b.msgs[u]; mm != nil {
			live, made = append(live, u), append(made, mm)
		}
	}
	d, err := a.MailboxByID(dest.id)
	if err != nil {
		m.Fatal(err)
	}
	do := a.Copy
	if move {
		do = a.Move
	}
	c, err := do(b.id, uids, d.Name)
	if err != nil {
		m.Fatal(err)
	}
	if !slices.Equal(c.Source, live) {
		m.Fatalf("source %v, want %v", c.Source, live)
	}
	m.arrived(dest, c, made)
	if move {
		for _, u := range live {
			delete(b.msgs, u)
		}
	}
}

func (m *model) expunge(a *Account, b *modelBox) {
	var uids, want []UID
	only := m.rnd.IntN(2) == 0
	if m.rnd.IntN(2) == 0 {
		uids = append([]UID{}, m.anyUIDs(b)...)
	}
	for _, u := range slices.Sorted(maps.Keys(b.msgs)) {
		if (uids == nil || slices.Contains(uids, u)) && (b.msgs[u].flags[`\Deleted`] || uids != nil && !only) {
			want = append(want, u)
			delete(b.msgs, u)
		}
	}
	went, _, err := a.Expunge(b.id, uids, only)
	if err != nil || !slices.Equal(went, want) {
		m.Errorf("expunged %v, want %v, %v", went, want, err)
	}
}

var modelNames = []string{"A", "A/B", "A/B/C", "dots.in.it", "..", "Entwürfe", "~x", "a%b", "x/.y", "INBOX/sub", "&",
	strings.Repeat("long/", 20) + "name", strings.Repeat("日", 80)}

func (m *model) create(a *Account, ma *modelAccount) {
	name := modelNames[m.rnd.IntN(len(modelNames))]
	b, err := a.CreateMailbox(name, "")
	if ma.boxes[name] != nil {
		if !errors.Is(err, ErrMailboxExists) {
			m.Errorf("create %q again: %v", name, err)
		}
		return
	}
	if err != nil {
		m.Fatal(err)
	}
	for _, n := range append(parents(name), name) {
		if ma.boxes[n] == nil {
			if b, err = a.Mailbox(n); err != nil {
				m.Fatal(err)
			}
			ma.boxes[n] = &modelBox{id: b.ID, validity: b.UIDValidity, next: 1, msgs: map[UID]*modelMessage{}}
		}
	}
}

func (m *model) delete(a *Account, ma *modelAccount, name string) {
	err := a.DeleteMailbox(name)
	if name == inbox {
		if !errors.Is(err, ErrCannotDelete) {
			m.Errorf("delete INBOX: %v", err)
		}
		return
	}
	if err != nil {
		m.Error(err)
	}
	delete(ma.boxes, name)
}

func (m *model) rename(a *Account, ma *modelAccount, from string) {
	to := modelNames[m.rnd.IntN(len(modelNames))] + strings.Repeat("'", m.rnd.IntN(3))
	err := a.RenameMailbox(from, to)
	var inside []string
	clash := ma.boxes[to] != nil || from != inbox && strings.HasPrefix(to+"/", from+"/")
	for n := range ma.boxes {
		if n == from || from != inbox && strings.HasPrefix(n, from+"/") {
			inside = append(inside, n)
			clash = clash || ma.boxes[to+n[len(from):]] != nil
		}
	}
	if err != nil {
		if !clash {
			m.Errorf("rename %q to %q: %v", from, to, err)
		}
		return
	}
	if clash {
		m.Errorf("rename %q to %q went through", from, to)
	}
	if from == inbox {
		msgs := ma.boxes[inbox].msgs
		ma.boxes[inbox].msgs = map[UID]*modelMessage{}
		nb := m.discover(a, ma, to)
		next := UID(1)
		for _, u := range slices.Sorted(maps.Keys(msgs)) {
			nb.msgs[next] = msgs[u]
			next++
		}
		nb.next = next
	} else {
		moved := map[string]*modelBox{}
		for _, n := range inside {
			moved[to+n[len(from):]] = ma.boxes[n]
			delete(ma.boxes, n)
		}
		maps.Copy(ma.boxes, moved)
	}
	for _, up := range parents(to) {
		if ma.boxes[up] == nil {
			m.discover(a, ma, up)
		}
	}
}

func (m *model) discover(a *Account, ma *modelAccount, name string) *modelBox {
	b, err := a.Mailbox(name)
	if err != nil {
		m.Fatal(err)
	}
	ma.boxes[name] = &modelBox{id: b.ID, validity: b.UIDValidity, next: 1, msgs: map[UID]*modelMessage{}}
	return ma.boxes[name]
}

// foreign does what another program may do to a folder, and has it taken in.
func (m *model) foreign(a *Account, b *modelBox) (what string) {
	if err := a.tidyUp(); err != nil { // so that file names show the flags
		m.Fatal(err)
	}
	time.Sleep(clockTick) // and that what follows shows in the folder's times
	a.mu.RLock()
	folder := a.boxes[b.id].rec.folder
	a.mu.RUnlock()
	dir := filepath.Join(a.dir, "Maildir", folder)
	uids := slices.Sorted(maps.Keys(b.msgs))
	var arrived *modelMessage
	switch n := m.rnd.IntN(3); {
	case n == 0 || len(uids) == 0:
		m.serial++
		what = "drop"
		arrived = &modelMessage{text: mailText(fmt.Sprintf("m%d", m.serial)), date: m.now.Unix(), flags: flagMap([]string{`\Seen`})}
		path := filepath.Join(dir, "cur", fmt.Sprintf("%d.foreign_%d.host:2,S", m.now.Unix(), m.serial))
		text := arrived.text
		if m.rnd.IntN(2) == 0 {
			text = strings.ReplaceAll(text, "\r\n", "\n")
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			m.Fatal(err)
		}
		if err := os.Chtimes(path, m.now, m.now); err != nil {
			m.Fatal(err)
		}
	case n == 1:
		what = "reflag"
		u := uids[m.rnd.IntN(len(uids))]
		e := m.entry(a, b, u)
		info := "2,FR"
		if err := a.blobs.Move(folder, e, blob.Entry{Stem: e.Stem, Info: info}); err != nil {
			m.Fatal(err)
		}
		b.msgs[u].flags = flagMap([]string{`\Flagged`, `\Answered`})
	default:
		what = "remove"
		u := uids[m.rnd.IntN(len(uids))]
		if err := a.blobs.Delete(folder, m.entry(a, b, u)); err != nil {
			m.Fatal(err)
		}
		delete(b.msgs, u)
	}
	m.now = m.now.Add(time.Hour)
	if m.rnd.IntN(3) == 0 {
		m.reopen()
		a = m.account(a.address)
		what += ", open"
	}
	if err := a.Refresh(b.id); err != nil {
		m.Fatal(err)
	}
	if arrived != nil {
		v, err := a.View(b.id)
		if err != nil || v.Len() == 0 {
			m.Fatalf("nothing arrived: %v", err)
		}
		u := v.At(v.Len() - 1).UID
		m.arrived(b, Copied{UIDValidity: b.validity, Dest: []UID{u}}, []*modelMessage{arrived})
	}
	return what
}

func (m *model) entry(a *Account, b *modelBox, u UID) blob.Entry {
	var e blob.Entry
	err := a.read(func(r kv.Reader) error {
		p, err := readPlacement(r, b.id, u)
		e = p.entry(a.rec.host, u)
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	return e
}

// rebuild deletes the index of every account.
func (m *model) rebuild() {
	m.close()
	m.store = nil
	for address := range m.accounts {
		path, _ := accountPath(address)
		if err := os.Remove(filepath.Join(m.dir, "accounts", path, indexFile)); err != nil {
			m.Fatal(err)
		}
	}
	m.reopen()
	for address, ma := range m.accounts {
		ma.log = m.account(address).ModSeq()
		for _, b := range ma.boxes {
			b.seen = nil
		}
	}
}

// compare compares an account with its model.
func (m *model) compare(address string) {
	a, ma := m.account(address), m.accounts[address]
	checkAccount(m, a)
	changed := m.readLog(a, ma)
	list, err := a.Mailboxes()
	if err != nil {
		m.Fatal(err)
	}
	if len(list) != len(ma.boxes) {
		m.Errorf("%d mailboxes, want %d", len(list), len(ma.boxes))
	}
	var usage Usage
	for _, box := range list {
		b := ma.boxes[box.Name]
		if b == nil {
			m.Errorf("mailbox %q should not be there", box.Name)
			continue
		}
		m.compareBox(a, box, b, changed[box.ID])
		if box.Subscribed != ma.subs[box.Name] {
			m.Errorf("%q subscribed: %v", box.Name, box.Subscribed)
		}
		usage.Messages += int64(box.Messages)
		usage.Bytes += box.Size
	}
	if u, _ := a.Usage(); u != usage {
		m.Errorf("usage %+v, want %+v", u, usage)
	}
	if subs, _ := a.Subscriptions(); len(subs) != len(ma.subs) {
		m.Errorf("subscriptions %q, want %v", subs, ma.subs)
	}
}

// readLog collects what the change log says of each mailbox since it was last read.
func (m *model) readLog(a *Account, ma *modelAccount) map[MailboxID]map[ChangeKind]map[UID]bool {
	all := map[MailboxID]map[ChangeKind]map[UID]bool{}
	for c, err := range a.Changes(ma.log) {
		if err != nil {
			m.Fatal(err)
		}
		if c.ModSeq < ma.log {
			m.Errorf("change %+v after %d", c, ma.log)
		}
		ma.log = c.ModSeq
		if all[c.Mailbox] == nil {
			all[c.Mailbox] = map[ChangeKind]map[UID]bool{Arrived: {}, FlagsChanged: {}, Expunged: {}}
		}
		for _, r := range c.UIDs {
			for u := r.First; u <= r.Last; u++ {
				all[c.Mailbox][c.Kind][u] = true
			}
		}
	}
	return all
}

func (m *model) compareBox(a *Account, box Mailbox, b *modelBox, log map[ChangeKind]map[UID]bool) {
	v, err := a.View(box.ID)
	if err != nil {
		m.Fatal(err)
	}
	if box.ID != b.id || box.UIDValidity != b.validity || box.UIDNext < b.next || box.HighestModSeq < b.modseq || v.Len() != len(b.msgs) {
		m.Errorf("%q: %+v with %d rows, want %+v with %d", box.Name, box, v.Len(), b, len(b.msgs))
		return
	}
	b.next, b.modseq = box.UIDNext, box.HighestModSeq
	for msg, err := range a.Messages(box.ID, viewUIDs(v), true) {
		mm := b.msgs[msg.UID]
		if err != nil || mm == nil {
			m.Fatalf("%q UID %d: %v", box.Name, msg.UID, err)
		}
		i, _ := v.Find(msg.UID)
		if got := flagMap(a.FlagNames(v.At(i).Flags)); !maps.Equal(got, mm.flags) {
			m.Errorf("%q UID %d: flags %v, want %v", box.Name, msg.UID, got, mm.flags)
		}
		if msg.InternalDate.Unix() != mm.date || msg.Size != int64(len(mm.text)) || mm.msgID != 0 && msg.ID != mm.msgID {
			m.Errorf("%q UID %d: %+v, want %+v", box.Name, msg.UID, msg, mm)
		}
		mm.msgID = msg.ID
		if m.rnd.IntN(10) == 0 {
			if got := readMail(m, a, box.Name, msg.UID); got != mm.text {
				m.Errorf("%q UID %d: bytes differ", box.Name, msg.UID)
			}
		}
	}
	m.compareDiff(box, b, v, log)
}

// compareDiff applies the difference of two views to the older one, and looks for all of it in the log.
func (m *model) compareDiff(box Mailbox, b *modelBox, v *View, log map[ChangeKind]map[UID]bool) {
	if b.seen != nil {
		rows := map[UID]Row{}
		for _, r := range b.seen.Rows(0, b.seen.Len()) {
			rows[r.UID] = r
		}
		d := Diff(b.seen, v)
		for _, u := range d.Expunged {
			delete(rows, u)
			if !log[Expunged][u] {
				m.Errorf("%q: UID %d went and the log has nothing of it", box.Name, u)
			}
		}
		for _, r := range append(slices.Clone(d.Changed), d.Arrived...) {
			rows[r.UID] = r
			if !log[Arrived][r.UID] && !log[FlagsChanged][r.UID] {
				m.Errorf("%q: UID %d changed and the log has nothing of it", box.Name, r.UID)
			}
		}
		for i, r := range v.Rows(0, v.Len()) {
			if rows[r.UID] != r || v.At(i) != r {
				m.Errorf("%q: row %+v, by difference %+v", box.Name, r, rows[r.UID])
			}
		}
		if len(rows) != v.Len() {
			m.Errorf("%q: %d rows by difference, %d in view", box.Name, len(rows), v.Len())
		}
	}
	b.seen = v
}
