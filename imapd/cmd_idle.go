package imapd

// IDLE (RFC 9051 section 6.3.13, RFC 2177).

import (
	"fmt"
	"strings"
	"time"
)

const (
	idleRefresh   = 30 * time.Second // how often a foreign program's changes to the Maildir are looked for
	idleKeepalive = 4                // every fourth time something is sent, or NATs forget the connection
)

// idleLine is what ended the wait: DONE, something else, or an error of the connection.
type idleLine struct {
	text string
	err  error
}

// idle tells changes as they happen until the client says DONE. Meanwhile a goroutine waits for that line, and s.in is its
// alone; it ends with the line, at the read deadline, or when stopIdle moves that deadline to now.
func (s *session) idle() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.out.Raw("+ idling\r\n")
	s.extend(s.srv.o.IdleTimeout)
	done := make(chan idleLine, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- idleLine{err: fmt.Errorf("panic in IDLE's reader: %v", p)}
			}
		}()
		text, err := s.in.answerLine()
		done <- idleLine{text, err}
	}()
	end, gone := s.watchMailbox(done)
	if end == nil {
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		end = &idleLine{}
		<-done
	}
	switch {
	case gone != nil:
		s.mailboxGone(gone)
	case s.ctx.Err() != nil:
		s.goodbye("Server is shutting down")
	case s.closed():
		s.goodbyeClosed()
	case s.out.err != nil:
		s.enter(logout)
	case end.err != nil:
		s.lost(end.err)
	case s.in.Failed():
		return s.in.Refusal()
	case !strings.EqualFold(strings.TrimSpace(end.text), "DONE"):
		return bad("Expected DONE")
	default:
		s.extend(commandTimeout)
		return ok("", "Idle is over")
	}
	return reply{}
}

// watchMailbox tells changes until the client's line comes (end), or there is a reason to stop without it: the server shuts
// down, the connection is lost, the mailbox is (gone). It must not touch s.in, nor change the state.
func (s *session) watchMailbox(done <-chan idleLine) (end *idleLine, gone error) {
	var changed <-chan struct{}
	if s.sel != nil {
		w := s.account.Watch(s.sel.id)
		defer w.Close()
		changed = w.C
	}
	tick := time.NewTicker(idleRefresh)
	defer tick.Stop()
	for n := 0; ; {
		if err := s.catchUp(true); err != nil {
			return nil, err
		}
		if s.out.Flush() != nil {
			return nil, nil
		}
		select {
		case line := <-done:
			return &line, nil
		case <-s.ctx.Done():
			return nil, nil
		case _, alive := <-changed:
			if !alive {
				changed = nil // the account was removed or the store closes: catchUp says so
			}
		case <-tick.C:
			if s.closed() {
				return nil, nil
			}
			s.refreshSelected()
			if n++; n%idleKeepalive == 0 {
				s.out.Raw("* OK Still here\r\n")
			}
		}
	}
}

// refreshSelected takes in what foreign programs did to the selected mailbox's folder.
func (s *session) refreshSelected() {
	if s.sel == nil {
		return
	}
	if err := s.account.Refresh(s.sel.id); err != nil {
		s.log.Warn("refresh", "mailbox", s.sel.name, "err", err)
	}
}
