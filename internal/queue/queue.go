// Package queue keeps mail for elsewhere until it is there or its sender knows that it is not. Accepted means durable; every
// recipient has its own state, its own history of attempts, and exactly one end: delivered, or failed and (where somebody
// wants to know) told.
//
// Where things are:
//
//	transport.go  what hands messages over (package relay)
//	format.go     the bytes in system.db
//	store.go      the transactions on them; commit.go one sync for all who wait
//	files.go      the messages, a Maildir
//	enqueue.go    taking a message over; local.go giving one to somebody here
//	sign.go       DKIM and ARC, in front of what leaves
//	schedule.go   destinations: who is next, how many at a time; pick.go what of theirs
//	attempt.go    one attempt and what becomes of it
//	settle.go     outcomes into states, notices and the next try
//	timers.go     what happens to a message by the clock alone
//	notice.go     what a report says; dsn.go how it is written
//	suppress.go   addresses that are known not to exist
//	admin.go      list, show, hold, release, retry, drop
//
// # Time
//
// Waits are monotonic; what is stored is wall-clock time, which may jump. So a message's age is not the difference of two
// readings: it grows by what has passed since it was last looked at, never by more than ageStep, and never shrinks. A
// clock that is years ahead for a minute costs a message a few hours of its lifetime, and a server that was off for a week
// tries again before it gives up. A due time further off than the schedule can have meant is a clock that went back, and is
// brought near.
package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"mailsrv/internal/delivery"
	"mailsrv/internal/disk"
	"mailsrv/storage/kv"
)

// Errors that callers branch on.
var (
	ErrNewerFormat = errors.New("written by a newer mailsrv")
	ErrDamaged     = errors.New("damaged record")
	ErrNoMessage   = errors.New("no such message in the queue")
	ErrClosed      = errors.New("the queue is closed")
)

// Options of a Queue.
type Options struct {
	DB        kv.DB        // system.db; keys under "queue/"
	Dir       string       // <data>/queue; made if need be
	FS        disk.FS      // nil: the real one
	Hostname  string       // in notices: Reporting-MTA, and the domain they come from
	Transport Transport    // nil: only administration; Start must not be called
	Local     Local        // nil: nobody is here, notices go to other servers only
	Signer    Signer       // nil: nothing is signed
	Policy    Policy       // zero fields are the defaults
	Logger    *slog.Logger // nil discards
	Meter     Meter        // nil: none
	Now       func() time.Time
}

// Policy is how patient the queue is and how hard it works.
type Policy struct {
	Lifetime       time.Duration // of a message, then it bounces; 0 is 5 days
	NoticeLifetime time.Duration // of mail from the null sender; 0 is 2 days
	DelayNotice    time.Duration // when the sender hears that it takes longer; 0 is 4 hours, negative never
	RetryFirst     time.Duration // after the first attempt; 0 is 5 minutes. Doubles from then on
	RetryMax       time.Duration // at most; 0 is 4 hours
	Workers        int           // attempts at a time in all; 0 is 64
	PerDestination int           // at a time to one destination; 0 is 20
	Suppress       time.Duration // how long a hard bounce is remembered; 0 is 3 days, negative not at all
	ReturnSize     int64         // a message larger than this is returned by its header alone; 0 is 1 MiB
	// Domain returns what is different for a recipient's domain (lower case, A-labels); nil or zeros: nothing.
	Domain func(domain string) DomainPolicy
}

// DomainPolicy is a domain's own patience.
type DomainPolicy struct{ Lifetime, DelayNotice time.Duration }

func (p Policy) withDefaults() Policy {
	p.Lifetime = cmp.Or(p.Lifetime, 5*24*time.Hour)
	p.NoticeLifetime = cmp.Or(p.NoticeLifetime, 2*24*time.Hour)
	p.DelayNotice = cmp.Or(p.DelayNotice, 4*time.Hour)
	p.RetryFirst = cmp.Or(p.RetryFirst, 5*time.Minute)
	p.RetryMax = max(cmp.Or(p.RetryMax, 4*time.Hour), p.RetryFirst)
	p.Workers = cmp.Or(p.Workers, 64)
	p.PerDestination = cmp.Or(p.PerDestination, 20)
	p.Suppress = cmp.Or(p.Suppress, 3*24*time.Hour)
	p.ReturnSize = cmp.Or(p.ReturnSize, 1<<20)
	return p
}

// Local is the mailboxes of this server, for notices to people here, and for mail to them that was not to come before its time.
type Local interface {
	Here(address string) bool
	// Deliver files the message for the envelope's one recipient: nil, a *delivery.Error, or another error, which is temporary.
	// The message has no Return-Path. A SUCCESS notice is from here on Deliver's duty.
	Deliver(ctx context.Context, env *delivery.Envelope, message io.Reader) error
}

// Meter counts; observe.Metrics is one.
type Meter interface {
	// QueueAttempt is called once for each recipient of an attempt; result is "delivered", "deferred" or "failed".
	QueueAttempt(result string)
	// QueueNotice is called once for each notice written; kind is "failed", "delayed", "relayed", "delivered" or
	// "postmaster".
	QueueNotice(kind string)
}

type noMeter struct{}

func (noMeter) QueueAttempt(string) {}
func (noMeter) QueueNotice(string)  {}

// Queue is safe for use by several goroutines.
type Queue struct {
	db        kv.DB
	commits   committer
	files     files
	host      string
	transport Transport
	local     Local
	signer    Signer
	policy    Policy
	log       *slog.Logger
	meter     Meter
	now       func() time.Time

	scheduler scheduler
	timers    chan struct{} // capacity 1: a timer earlier than those known
	stopping  chan struct{} // closed by Shutdown: nothing new begins
	cancel    context.CancelFunc
	running   sync.WaitGroup // the loops and the attempts

	mu         sync.Mutex
	started    bool
	stopped    bool
	messages   int // in the queue
	suppressed int // addresses on the list
}

// Open reads what a start needs to know: the destinations that mail waits for, and which files have no entry (leftovers of a
// crash: removed) or entries no file (reported; they bounce). It decodes no entry. ErrNewerFormat, or the disk's errors.
func Open(o Options) (*Queue, error) {
	q := &Queue{
		db: o.DB, host: strings.ToLower(o.Hostname), transport: o.Transport, local: o.Local, signer: o.Signer,
		files:    files{fs: o.FS, dir: o.Dir},
		policy:   o.Policy.withDefaults(),
		log:      cmp.Or(o.Logger, slog.New(slog.DiscardHandler)),
		meter:    o.Meter,
		now:      o.Now,
		timers:   make(chan struct{}, 1),
		stopping: make(chan struct{}),
	}
	if q.files.fs == nil {
		q.files.fs = disk.OS()
	}
	if q.meter == nil {
		q.meter = noMeter{}
	}
	if q.now == nil {
		q.now = time.Now
	}
	q.commits = committer{db: q.db, sync: q.files.sync}
	q.scheduler.init(q.policy)
	for _, step := range []func() error{q.checkFormat, q.files.make, q.reconcile, q.repairClock, q.loadDestinations, q.countSuppressed} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("queue: %w", err)
		}
	}
	return q, nil
}

// Start begins to send. Call it once; Shutdown ends it.
func (q *Queue) Start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.started || q.stopped {
		return
	}
	q.started = true
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	q.running.Go(func() { q.dispatch(ctx) }) // until stopping
	q.running.Go(q.runTimers)                // until stopping
}

// Shutdown begins nothing new and waits for the attempts under way; when ctx ends first, they are cut and what is then still
// open stays in the queue. Messages can be enqueued until the database is closed.
func (q *Queue) Shutdown(ctx context.Context) error {
	q.mu.Lock()
	begun := q.started && !q.stopped
	q.stopped = true
	q.mu.Unlock()
	if !begun {
		return nil
	}
	close(q.stopping)
	defer q.cancel()
	done := make(chan struct{})
	go func() { // until the attempts have ended, which a cut makes soon
		q.running.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		q.cancel()
		<-done
		return ctx.Err()
	}
}

// Stats are what is counted of the queue now.
type Stats struct {
	Messages     int // in the queue
	Destinations int // that mail waits for, or that are left alone for a while
	Active       int // attempts under way
	Suppressed   int // addresses on the list
}

// Stats costs no reading.
func (q *Queue) Stats() Stats {
	s := Stats{}
	s.Destinations, s.Active = q.scheduler.counts()
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Messages, s.Suppressed = q.messages, q.suppressed
	return s
}

func (q *Queue) count(messages int) {
	q.mu.Lock()
	q.messages += messages
	q.mu.Unlock()
}

// domainOf is an address's domain in lower case, "" if it has none.
func domainOf(address string) string {
	return strings.ToLower(address[strings.LastIndexByte(address, '@')+1:])
}
