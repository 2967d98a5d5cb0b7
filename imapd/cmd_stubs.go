package imapd

func (s *session) append() reply  { return bad("soon") }
func (s *session) idle() reply    { return bad("soon") }
func (s *session) expunge() reply { return bad("soon") }
func (s *session) store() reply   { return bad("soon") }
func (s *session) copy() reply    { return bad("soon") }
func (s *session) move() reply    { return bad("soon") }
