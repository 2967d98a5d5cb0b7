package imapd

func (s *session) search() reply { return no("CANNOT", "imapB builds this") }
