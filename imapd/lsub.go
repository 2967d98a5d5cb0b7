package imapd

// lsub is LSUB (RFC 3501 section 6.3.9). It differs from LIST (SUBSCRIBED) in what "%" finds: see listTree.lsub.
func (s *session) lsub() reply {
	s.in.SP()
	reference := s.in.ListMailbox()
	s.in.SP()
	pattern := s.in.ListMailbox()
	if !s.in.End() {
		return s.in.Refusal()
	}
	if pattern == "" {
		s.out.Star().Raw(`LSUB (\Noselect) "/" ""`).CRLF()
		return ok("", "Listed")
	}
	tree, err := s.listTree()
	if err != nil {
		return refused("lsub", err)
	}
	for _, row := range tree.lsub(newListPattern(reference, pattern), s.in.utf8) {
		s.tellList("LSUB", row)
	}
	return ok("", "Listed")
}
