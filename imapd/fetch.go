package imapd

func (s *session) fetch() reply { return no("CANNOT", "imapB builds this") }
