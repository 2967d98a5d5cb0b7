package imapd

func (s *session) create() reply      { return no("CANNOT", "imapB builds this") }
func (s *session) delete() reply      { return no("CANNOT", "imapB builds this") }
func (s *session) rename() reply      { return no("CANNOT", "imapB builds this") }
func (s *session) subscribe() reply   { return no("CANNOT", "imapB builds this") }
func (s *session) unsubscribe() reply { return no("CANNOT", "imapB builds this") }
func (s *session) list() reply        { return no("CANNOT", "imapB builds this") }
func (s *session) lsub() reply        { return no("CANNOT", "imapB builds this") }
func (s *session) namespace() reply   { return no("CANNOT", "imapB builds this") }
func (s *session) status() reply      { return no("CANNOT", "imapB builds this") }
