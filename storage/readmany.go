package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"mailsrv/internal/message"
	"mailsrv/storage/kv"
)

// readMessages reads the placements uids (ascending) as far as they are there, with their summaries if asked.
func readMessages(r kv.Reader, id MailboxID, uids []UID, withSummary bool) ([]Message, error) {
	batch := make([]Message, 0, len(uids))
	err := walk(r, len(uids), func(b []byte, i int) []byte {
		return appendKey8(b, prefixPlacement, id, uint32(uids[i]))
	}, func(i int, v []byte) error {
		p, err := decodePlacement(v)
		batch = append(batch, Message{UID: uids[i], ID: p.id, InternalDate: unix(p.internal), SaveDate: unix(p.saved), Size: p.size})
		return err
	})
	if err != nil || !withSummary {
		return batch, err
	}
	err = walk(r, len(batch), func(b []byte, i int) []byte {
		return binary.BigEndian.AppendUint64(append(b, prefixMessage), uint64(batch[i].ID))
	}, func(i int, v []byte) (err error) {
		if batch[i].Summary, err = message.ParseSummary(v); err != nil {
			return fmt.Errorf("%w: summary of UID %d: %w", errDamaged, batch[i].UID, err)
		}
		return nil
	})
	for i := range batch {
		if batch[i].Summary == nil { // what is before it is good
			if err == nil {
				err = fmt.Errorf("%w: UID %d has no summary", errDamaged, batch[i].UID)
			}
			return batch[:i], err
		}
	}
	return batch, err
}

// walkAhead is how many keys that nobody asked for are passed over before it is cheaper to look the next one up.
const walkAhead = 8

// walk calls found for those of n keys that are there, in their order. key appends key i to b. What was filed together lies together:
// going on to the next pair costs a fraction of finding it from the root.
func walk(r kv.Reader, n int, key func(b []byte, i int) []byte, found func(i int, v []byte) error) error {
	var want, next []byte
	var err error
	i := 0
	// step goes on to the next key, and says whether it can be reached from here.
	step := func() bool {
		if i++; i == n {
			return false
		}
		next = key(next[:0], i)
		want, next = next, want
		return bytes.Compare(want, next) > 0
	}
	for i < n && err == nil {
		want = key(want[:0], i)
		passed, more := 0, false // more: there are keys beyond those looked at
		r.Scan(want, nil, func(k, v []byte) bool {
			more = false
			for bytes.Compare(k, want) > 0 { // want is not there
				if !step() {
					more = true
					return false
				}
			}
			if !bytes.Equal(k, want) {
				passed++
				more = passed == walkAhead
				return !more
			}
			if err = found(i, v); err != nil {
				return false
			}
			more = !step()
			return !more
		})
		if !more {
			return err // the end of all keys
		}
	}
	return err
}
