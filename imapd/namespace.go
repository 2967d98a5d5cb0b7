package imapd

// namespace is NAMESPACE (RFC 9051 section 6.3.10): a user's own mailboxes without a prefix, nobody else's, none shared.
func (s *session) namespace() reply {
	if !s.in.End() {
		return s.in.Refusal()
	}
	s.out.Star().Raw(`NAMESPACE (("" "/")) NIL NIL`).CRLF()
	return ok("", "Done")
}
