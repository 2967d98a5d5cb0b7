package imapd

// state is where a session stands (RFC 9051 section 3). A set of states is their sum.
type state uint8

const (
	notAuthenticated state = 1 << iota
	authenticated
	selected
	logout

	anyState = notAuthenticated | authenticated | selected
	loggedIn = authenticated | selected
)

func (s state) String() string {
	switch s {
	case notAuthenticated:
		return "not authenticated"
	case authenticated:
		return "authenticated"
	case selected:
		return "selected"
	case logout:
		return "logout"
	}
	return "several states"
}

// trait is what the dispatcher must know of a command to keep the rules that no handler may forget.
type trait uint8

const (
	// holdsExpunge: no EXPUNGE response before the command is over (RFC 9051 section 7.5.1: FETCH, STORE, SEARCH by message
	// number). Whatever went meanwhile is told at the next command that may. COPY is one of them by our own choice.
	holdsExpunge trait = 1 << iota
	// byUID: the numbers in the command are UIDs. A handler asks s.byUID().
	byUID
	// leaves: the command leaves the selected mailbox or ends the session; nothing is told of it any more.
	leaves
	// writes: refused with NO [READ-ONLY] in a mailbox opened by EXAMINE.
	writes
)

// command is a row of the table.
type command struct {
	run    func(*session) reply // reads its arguments from s.in, up to End, and answers
	states state
	traits trait
}

// commands is the language that imapd speaks. Extensions add rows here and a capability below.
func commandTable() map[string]command {
	return map[string]command{
		// RFC 9051 section 6.1, RFC 2971
		"CAPABILITY": {(*session).capability, anyState, 0},
		"NOOP":       {(*session).noop, anyState, 0},
		"LOGOUT":     {(*session).logout, anyState, leaves},
		"ID":         {(*session).id, anyState, 0},

		// RFC 9051 section 6.2
		"STARTTLS":     {(*session).starttls, notAuthenticated, 0},
		"AUTHENTICATE": {(*session).authenticate, notAuthenticated, 0},
		"LOGIN":        {(*session).login, notAuthenticated, 0},

		// RFC 9051 section 6.3
		"ENABLE":      {(*session).enable, loggedIn, 0},
		"SELECT":      {(*session).selectMailbox, loggedIn, leaves},
		"EXAMINE":     {(*session).examine, loggedIn, leaves},
		"CREATE":      {(*session).create, loggedIn, 0},
		"DELETE":      {(*session).delete, loggedIn, 0},
		"RENAME":      {(*session).rename, loggedIn, 0},
		"SUBSCRIBE":   {(*session).subscribe, loggedIn, 0},
		"UNSUBSCRIBE": {(*session).unsubscribe, loggedIn, 0},
		"LIST":        {(*session).list, loggedIn, 0},
		"LSUB":        {(*session).lsub, loggedIn, 0}, // RFC 3501 section 6.3.9
		"NAMESPACE":   {(*session).namespace, loggedIn, 0},
		"STATUS":      {(*session).status, loggedIn, 0},
		"APPEND":      {(*session).append, loggedIn, 0},
		"IDLE":        {(*session).idle, loggedIn, 0},

		// RFC 9051 section 6.4
		"CHECK":       {(*session).noop, selected, 0}, // RFC 3501 section 6.4.1
		"CLOSE":       {(*session).closeMailbox, selected, leaves},
		"UNSELECT":    {(*session).unselect, selected, leaves},
		"EXPUNGE":     {(*session).expunge, selected, writes},
		"UID EXPUNGE": {(*session).expunge, selected, writes | byUID},
		"SEARCH":      {(*session).search, selected, holdsExpunge},
		"UID SEARCH":  {(*session).search, selected, byUID},
		"FETCH":       {(*session).fetch, selected, holdsExpunge},
		"UID FETCH":   {(*session).fetch, selected, byUID},
		"STORE":       {(*session).store, selected, holdsExpunge | writes},
		"UID STORE":   {(*session).store, selected, byUID | writes},
		"COPY":        {(*session).copy, selected, holdsExpunge},
		"UID COPY":    {(*session).copy, selected, byUID},
		"MOVE":        {(*session).move, selected, writes},
		"UID MOVE":    {(*session).move, selected, writes | byUID},
	}
}

// capabilities is what CAPABILITY says, in this order; each as soon as its condition holds. APPENDLIMIT's number and the AUTH=
// mechanisms are added by session.capabilities.
var capabilities = []struct {
	name string
	when func(*session) bool
}{
	{"IMAP4rev1", always}, // RFC 3501
	{"IMAP4rev2", always}, // RFC 9051
	{"LITERAL+", always},  // RFC 7888
	{"SASL-IR", beforeLogin},
	{"STARTTLS", canStartTLS},
	{"LOGINDISABLED", loginDisabled},
	{"ID", always},     // RFC 2971
	{"ENABLE", always}, // RFC 5161
	{"IDLE", afterLogin},
	{"NAMESPACE", afterLogin},          // RFC 2342
	{"UIDPLUS", afterLogin},            // RFC 4315
	{"MOVE", afterLogin},               // RFC 6851
	{"UNSELECT", afterLogin},           // RFC 3691
	{"CHILDREN", afterLogin},           // RFC 3348
	{"LIST-EXTENDED", afterLogin},      // RFC 5258
	{"LIST-STATUS", afterLogin},        // RFC 5819
	{"SPECIAL-USE", afterLogin},        // RFC 6154
	{"CREATE-SPECIAL-USE", afterLogin}, // RFC 6154
	{"ESEARCH", afterLogin},            // RFC 4731
	{"SEARCHRES", afterLogin},          // RFC 5182
	{"STATUS=SIZE", afterLogin},        // RFC 8438
	{"BINARY", afterLogin},             // RFC 3516
	{"UTF8=ACCEPT", afterLogin},        // RFC 6855
	{"CONDSTORE", afterLogin},          // RFC 7162
}

func always(*session) bool        { return true }
func beforeLogin(s *session) bool { return s.state == notAuthenticated }
func afterLogin(s *session) bool  { return s.state&loggedIn != 0 }
func canStartTLS(s *session) bool { return beforeLogin(s) && !s.tls && s.srv.o.TLS != nil }

func loginDisabled(s *session) bool {
	return beforeLogin(s) && (s.srv.o.Auth == nil || !s.srv.o.Auth.MayAuthenticate(s.authPeer()))
}
