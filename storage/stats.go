package storage

// Stats is what a store does, for metrics.
type Stats struct {
	Accounts int   // held open now, or being opened
	Messages int64 // filed by Append since Open
	Bytes    int64 // of those
}

// Stats costs a lock and two loads.
func (s *Store) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Accounts: len(s.slots), Messages: s.appended.Load(), Bytes: s.bytes.Load()}
}
