package directory

import (
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
)

var cheap = HashParams{Memory: 8, Time: 1, Lanes: 1}

func open(t *testing.T, db *memDB, seed Seed) *Directory {
	t.Helper()
	var d *Directory
	var err error
	if db == nil {
		d, err = Open(nil, seed, WithHashParams(cheap))
	} else {
		d, err = Open(db, seed, WithHashParams(cheap))
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func declared(addresses ...string) (all []SeedAccount) {
	for _, a := range addresses {
		all = append(all, SeedAccount{Account: Account{Address: a}, Password: "secret"})
	}
	return all
}

// house is a directory with something of everything.
func house(t *testing.T) *Directory {
	t.Helper()
	seed := Seed{
		Domains: []Domain{
			{Name: "example.test", Legacy: true, QuotaBytes: 1000},
			{Name: "Bücher.example", CatchAll: "alice@example.test", Subaddress: "-+"},
			{Name: "plain.test", Subaddress: "-"},
			{Name: "loop.test", CatchAll: "nobody@loop.test"},
		},
		Accounts: declared("bob@example.test", "alice@example.test", "leser@bücher.example", "x@plain.test"),
		Aliases: []Alias{
			{Address: "team@example.test", Targets: []string{"Alice@example.test", "bob+team@example.test", "Carol@Elsewhere.TEST"}},
			{Address: "all@example.test", Targets: []string{"team@example.test", "alice@example.test", "leser@bücher.example"}},
			{Address: "a@example.test", Targets: []string{"b@example.test"}},
			{Address: "b@example.test", Targets: []string{"bob@example.test", "c@example.test"}},
			{Address: "c@example.test", Targets: []string{"a+tag@example.test"}},
			{Address: "half@example.test", Targets: []string{"gone@example.test", "bob@example.test"}},
			{Address: "none@example.test", Targets: []string{"gone@example.test"}},
			{Address: "off@example.test", Targets: []string{"off2@example.test"}},
			{Address: "boss@example.test", Targets: []string{"postmaster"}},
		},
		Groups: []Group{{Address: "staff@example.test", Members: []string{"alice@example.test", "all@example.test"}, Private: true}},
	}
	seed.Accounts = append(seed.Accounts, SeedAccount{Account: Account{Address: "off2@example.test", Disabled: true}})
	return open(t, nil, seed)
}

func TestResolve(t *testing.T) {
	d := house(t)
	tests := []struct {
		in   string
		want string // "account[+tag] … > remote …"
		err  error
	}{
		{"ALICE@Example.Test", "alice@example.test", nil},
		{`"alice"@example.test`, "alice@example.test", nil},
		{"alice+Lists@example.test", "alice@example.test(lists)", nil},
		{"alice+a+b@example.test", "alice@example.test(a+b)", nil},
		{"alice-x@example.test", "", ErrNoRecipient},
		{"+alice@example.test", "", ErrNoRecipient},
		{"leser-x@bücher.example", "leser@xn--bcher-kva.example(x)", nil},
		{"x-y@plain.test", "", ErrNoRecipient},
		{"x+y@plain.test", "", ErrNoRecipient},

		{"team@example.test", "alice@example.test bob@example.test(team) > Carol@elsewhere.test", nil},
		{"team+t@example.test", "alice@example.test(t) bob@example.test(team) > Carol@elsewhere.test", nil},
		{"all@example.test", "alice@example.test bob@example.test(team) leser@xn--bcher-kva.example > Carol@elsewhere.test", nil},
		{"staff@example.test", "alice@example.test bob@example.test(team) leser@xn--bcher-kva.example > Carol@elsewhere.test", nil},
		{"a@example.test", "", ErrAliasLoop},
		{"half@example.test", "bob@example.test", nil},
		{"none@example.test", "", ErrNoRecipient},
		{"off@example.test", "", ErrDisabled},
		{"off2@example.test", "", ErrDisabled},

		{"anything@bücher.example", "alice@example.test", nil}, // catch-all
		{"nobody@loop.test", "", ErrAliasLoop},
		{"nobody@example.test", "", ErrNoRecipient},
		{"x@elsewhere.test", "", ErrNoDomain},
		{"x@sub.example.test", "", ErrNoDomain},
		{"no address", "", ErrBadAddress},

		{"postmaster", "bob@example.test", nil}, // the first declared, not the first by name
		{"Postmaster@example.test", "bob@example.test", nil},
		{"abuse@example.test", "bob@example.test", nil},
		{"abuse+x@example.test", "bob@example.test(x)", nil},
		{"postmaster@bücher.example", "leser@xn--bcher-kva.example", nil}, // before the catch-all
		{"abuse@loop.test", "bob@example.test", nil},                      // no account there: the server's first
		{"boss@example.test", "bob@example.test", nil},
	}
	for _, tt := range tests {
		r, err := d.Resolve(tt.in)
		if !errors.Is(err, tt.err) || err == nil && show(r) != tt.want {
			t.Errorf("Resolve(%s) = %s, %v; want %s, %v", tt.in, show(r), err, tt.want, tt.err)
		}
	}
}

func show(r Resolution) string {
	var parts []string
	for _, l := range r.Local {
		s := l.Account.Address
		if l.Tag != "" {
			s += "(" + l.Tag + ")"
		}
		parts = append(parts, s)
	}
	if r.Remote != nil {
		parts = append(append(parts, ">"), r.Remote...)
	}
	return strings.Join(parts, " ")
}

func TestResolveRoles(t *testing.T) {
	domains := []Domain{{Name: "example.test"}, {Name: "other.test"}}
	d := open(t, nil, Seed{Domains: domains, Accounts: declared("a@example.test", "abuse@other.test"), Postmaster: "root@elsewhere.test"})
	for in, want := range map[string]string{
		"postmaster@other.test": "> root@elsewhere.test",
		"abuse@other.test":      "abuse@other.test",
		"abuse@example.test":    "> root@elsewhere.test",
	} {
		if r, err := d.Resolve(in); err != nil || show(r) != want {
			t.Errorf("Resolve(%s) = %s, %v; want %s", in, show(r), err, want)
		}
	}
	if _, err := open(t, nil, Seed{Domains: domains}).Resolve("postmaster"); !errors.Is(err, ErrNoRecipient) {
		t.Errorf("postmaster of an empty server: %v", err)
	}
	if _, err := open(t, nil, Seed{}).Resolve("postmaster"); !errors.Is(err, ErrNoDomain) {
		t.Errorf("postmaster of a server without domain: %v", err)
	}
}

// The stand-in follows accounts as they come and go.
func TestPostmasterStandIn(t *testing.T) {
	d := open(t, newMemDB(), Seed{Domains: []Domain{{Name: "x.test"}}})
	step := func(err error, want string) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if r, _ := d.Resolve("postmaster"); show(r) != want {
			t.Errorf("postmaster is %q, want %q", show(r), want)
		}
	}
	step(d.AddAccount(Account{Address: "m@x.test"}, ""), "m@x.test")
	step(d.AddAccount(Account{Address: "z@x.test"}, ""), "m@x.test")
	step(d.AddAccount(Account{Address: "a@x.test"}, ""), "a@x.test")
	step(d.UpdateAccount("a@x.test", disable), "m@x.test")
	step(d.RemoveAccount("m@x.test"), "z@x.test")
	step(d.RemoveAccount("z@x.test"), "")
	step(d.UpdateAccount("a@x.test", enable), "a@x.test")
}

func disable(a *Account) { a.Disabled = true }
func enable(a *Account)  { *a = Account{} }

func TestResolveIsBounded(t *testing.T) {
	seed := Seed{Domains: []Domain{{Name: "x.test"}}, Accounts: declared("end@x.test")}
	for i := range 100 { // a chain
		seed.Aliases = append(seed.Aliases, Alias{Address: fmt.Sprintf("c%d@x.test", i), Targets: []string{fmt.Sprintf("c%d@x.test", i+1)}})
	}
	seed.Aliases = append(seed.Aliases, Alias{Address: "c100@x.test", Targets: []string{"end@x.test"}})
	for i := range 3 { // three lists that are too much together
		a := Alias{Address: fmt.Sprintf("big%d@x.test", i)}
		for j := range maxTargets {
			a.Targets = append(a.Targets, fmt.Sprintf("u%d@r%d.test", j, i))
		}
		seed.Aliases = append(seed.Aliases, a)
	}
	seed.Aliases = append(seed.Aliases, Alias{Address: "huge@x.test", Targets: []string{"big0@x.test", "big1@x.test", "big2@x.test"}})
	for i := range 30 { // doubling: 2^30 ways to one account
		next := fmt.Sprintf("d%d@x.test", i+1)
		seed.Aliases = append(seed.Aliases, Alias{Address: fmt.Sprintf("d%d@x.test", i), Targets: []string{next, next}})
	}
	seed.Aliases = append(seed.Aliases, Alias{Address: "d30@x.test", Targets: []string{"end@x.test"}})
	d := open(t, nil, seed)
	for in, want := range map[string]error{"c0@x.test": ErrAliasTooBig, "c90@x.test": nil, "huge@x.test": ErrAliasTooBig,
		"big0@x.test": nil, "d0@x.test": nil} {
		if _, err := d.Resolve(in); !errors.Is(err, want) {
			t.Errorf("Resolve(%s): %v, want %v", in, err, want)
		}
	}
	seed.Aliases = []Alias{{Address: "over@x.test", Targets: make([]string, maxTargets+1)}}
	if _, err := Open(nil, seed); err == nil {
		t.Error("an alias with too many targets was taken")
	}
}

func TestMaySend(t *testing.T) {
	d := house(t)
	as := []struct {
		account, from string
		want          bool
	}{
		{"alice@example.test", "Alice@EXAMPLE.test", true},
		{"alice@example.test", "alice+news@example.test", true},
		{"alice@example.test", "bob@example.test", false},
		{"alice@example.test", "team@example.test", true},
		{"alice@example.test", "all+x@example.test", true},
		{"leser@bücher.example", "team@example.test", false},
		{"leser@bücher.example", "all@example.test", true},
		{"alice@example.test", "anything@bücher.example", false}, // catch-all only
		{"bob@example.test", "postmaster@example.test", true},
		{"alice@example.test", "a@example.test", false}, // a loop
		{"alice@example.test", "carol@elsewhere.test", false},
		{"nobody@example.test", "nobody@example.test", false},
		{"alice@example.test", "not an address", false},
	}
	for _, tt := range as {
		if got := d.MaySendAs(tt.account, tt.from); got != tt.want {
			t.Errorf("MaySendAs(%s, %s) = %v", tt.account, tt.from, got)
		}
	}
	to := []struct {
		account, to string
		want        bool
	}{
		{"alice@example.test", "staff@example.test", true},
		{"bob@example.test", "staff+x@example.test", true},
		{"x@plain.test", "staff@example.test", false},
		{"", "staff@example.test", false},
		{"", "team@example.test", true},
		{"", "alice@example.test", true},
		{"", "unknown@example.test", true},
	}
	for _, tt := range to {
		if got := d.MaySendTo(tt.account, tt.to); got != tt.want {
			t.Errorf("MaySendTo(%s, %s) = %v", tt.account, tt.to, got)
		}
	}
}

func TestOpenRefusesBadSeeds(t *testing.T) {
	dom := []Domain{{Name: "x.test"}}
	tests := []struct {
		seed Seed
		want error
		text string
	}{
		{Seed{Domains: []Domain{{Name: "x.test"}, {Name: "X.TEST"}}}, ErrExists, "domain x.test"},
		{Seed{Domains: []Domain{{Name: "x..test"}}}, ErrBadAddress, "domain"},
		{Seed{Domains: []Domain{{Name: "x.test", CatchAll: "no"}}}, ErrBadAddress, "catch-all"},
		{Seed{Domains: dom, Accounts: declared("a@y.test")}, ErrNoDomain, "account a@y.test"},
		{Seed{Domains: dom, Accounts: declared("a@x.test", "A@x.test")}, ErrExists, "account A@x.test"},
		{Seed{Domains: dom, Accounts: []SeedAccount{{Account: Account{Address: "a@x.test"}, Hash: "$1$abc"}}}, ErrBadHash, "account"},
		{Seed{Domains: dom, Accounts: declared("a@x.test"), Aliases: []Alias{{Address: "a@x.test", Targets: []string{"b@z"}}}}, ErrExists, "alias"},
		{Seed{Domains: dom, Aliases: []Alias{{Address: "a@x.test"}}}, nil, "1 to"},
		{Seed{Domains: dom, Aliases: []Alias{{Address: "a@x.test", Targets: []string{"b c"}}}}, ErrBadAddress, "alias"},
		{Seed{Domains: dom, Groups: []Group{{Address: "a@y.test", Members: []string{"b@x.test"}}}}, ErrNoDomain, "group"},
		{Seed{Domains: dom, Postmaster: "x"}, ErrBadAddress, "postmaster"},
		{Seed{Accounts: declared("postmaster")}, ErrNoDomain, "none is declared"},
	}
	for i, tt := range tests {
		_, err := Open(nil, tt.seed)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%d: %v; want %v with %q", i, err, tt.want, tt.text)
		}
	}
}

func TestLookups(t *testing.T) {
	d := house(t)
	if a, ok := d.Account("ALICE@example.test"); !ok || !a.Legacy || !a.Declared || a.Address != "alice@example.test" {
		t.Errorf("Account: %+v %v", a, ok)
	}
	for _, no := range []string{"alice+x@example.test", "team@example.test", "postmaster", "x@elsewhere.test", ""} {
		if a, ok := d.Account(no); ok {
			t.Errorf("Account(%q) = %+v", no, a)
		}
	}
	if dom, ok := d.Domain("BÜCHER.example"); !ok || dom.Name != "xn--bcher-kva.example" {
		t.Errorf("Domain: %+v %v", dom, ok)
	}
	if _, ok := d.Domain("other"); ok || d.Local("x@other") || !d.Local("nobody@EXAMPLE.test") || !d.Local("postmaster") {
		t.Error("Local, Domain")
	}
	if b, n := d.Quota("alice@example.test"); b != 1000 || n != 0 {
		t.Errorf("Quota = %d, %d", b, n)
	}
	if got := len(d.Accounts()); got != 5 {
		t.Errorf("%d accounts", got)
	}
	if got := d.Domains(); len(got) != 4 || got[0].Name != "example.test" || got[0].Subaddress != "+" {
		t.Errorf("Domains: %+v", got)
	}
	if as, gs := d.Aliases(), d.Groups(); len(as) != 9 || as[0].Address != "a@example.test" || len(gs) != 1 || !gs[0].Private {
		t.Errorf("Aliases %v, Groups %v", as, gs)
	}
}

func TestAccountsChange(t *testing.T) {
	db := newMemDB()
	seed := Seed{Domains: []Domain{{Name: "x.test"}}, Accounts: declared("fixed@x.test"),
		Aliases: []Alias{{Address: "al@x.test", Targets: []string{"fixed@x.test"}}}}
	d := open(t, db, seed)
	for _, tt := range []struct {
		address string
		want    error
	}{
		{"New@X.test", nil}, {"new@x.test", ErrExists}, {"fixed@x.test", ErrExists}, {"al@x.test", ErrExists},
		{"a@y.test", ErrNoDomain}, {"nonsense", ErrBadAddress},
	} {
		if err := d.AddAccount(Account{Address: tt.address, QuotaBytes: 7}, "pässword"); !errors.Is(err, tt.want) {
			t.Errorf("AddAccount(%s): %v, want %v", tt.address, err, tt.want)
		}
	}
	login := func(d *Directory, address, password string, want bool) {
		t.Helper()
		if _, ok := d.CheckPassword(address, password); ok != want {
			t.Errorf("CheckPassword(%s, %s) = %v", address, password, ok)
		}
	}
	login(d, "new@x.test", "pässword", true)
	login(d, "NEW@x.test", "pa\u0308ssword", true) // decomposed: the same password
	login(d, "new@x.test", "passwort", false)
	login(d, "new@x.test", "", false)
	login(d, "fixed@x.test", "secret", true)
	login(d, "fixed@x.test", "secret ", false)
	login(d, "nobody@x.test", "secret", false)
	login(d, "not an address", "secret", false)
	login(d, "new@x.test", strings.Repeat("x", MaxPassword+1), false)

	again := open(t, db, seed)
	if a, ok := again.Account("new@x.test"); !ok || a.QuotaBytes != 7 || a.Declared {
		t.Errorf("after reopening: %+v %v", a, ok)
	}
	login(again, "new@x.test", "pässword", true)

	epoch := d.Epoch("new@x.test")
	next := func(what string, err error) {
		t.Helper()
		e := d.Epoch("new@x.test")
		if err != nil || e == epoch {
			t.Errorf("%s: %v, epoch %d -> %d", what, err, epoch, e)
		}
		epoch = e
	}
	next("passwd", d.SetPassword("new@x.test", "other"))
	login(d, "new@x.test", "pässword", false)
	login(d, "new@x.test", "other", true)
	next("disable", d.UpdateAccount("New@x.test", disable))
	login(d, "new@x.test", "other", false)
	next("enable", d.UpdateAccount("new@x.test", enable))
	login(d, "new@x.test", "other", true)
	if err := d.UpdateAccount("new@x.test", func(a *Account) { a.QuotaBytes, a.Address = 9, "other@x.test" }); err != nil || d.Epoch("new@x.test") != epoch {
		t.Errorf("a quota is no credential: %v", err)
	}
	next("remove", d.RemoveAccount("new@x.test"))
	if epoch != 0 {
		t.Errorf("epoch of a removed account: %d", epoch)
	}
	next("add again", d.AddAccount(Account{Address: "new@x.test"}, "other"))

	for want, errs := range map[error][]error{
		ErrNoAccount: {d.RemoveAccount("no@x.test"), d.SetPassword("no@x.test", "p"), d.UpdateAccount("no@x.test", enable)},
		ErrDeclared:  {d.RemoveAccount("fixed@x.test"), d.SetPassword("fixed@x.test", "p"), d.UpdateAccount("fixed@x.test", enable)},
	} {
		for i, err := range errs {
			if !errors.Is(err, want) {
				t.Errorf("%d: %v, want %v", i, err, want)
			}
		}
	}
	if err := d.SetPassword("new@x.test", ""); !errors.Is(err, ErrPasswordEmpty) {
		t.Error(err)
	}
	if err := d.AddAccount(Account{Address: "long@x.test"}, strings.Repeat("x", MaxPassword+1)); !errors.Is(err, ErrPasswordTooLong) {
		t.Error(err)
	}
}

// Whoever asks, and whatever is wrong, one argon2 is paid: by its memory, which cannot be faked.
func TestNoUserEnumeration(t *testing.T) {
	params := HashParams{Memory: 4096, Time: 1, Lanes: 1}
	d, err := Open(nil, Seed{Domains: []Domain{{Name: "x.test"}}, Accounts: append(declared("demo@x.test"),
		SeedAccount{Account: Account{Address: "none@x.test"}})}, WithHashParams(params))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []Account{{Address: "a@x.test"}, {Address: "off@x.test", Disabled: true}} {
		if err := d.AddAccount(a, "secret"); err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"a@x.test", "off@x.test", "demo@x.test", "none@x.test", "nobody@x.test", "x@elsewhere.test", "not an address", ""} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, ok := d.CheckPassword(user, "wrong")
		runtime.ReadMemStats(&after)
		if got := (after.TotalAlloc - before.TotalAlloc) >> 10; ok || got < 4096 || got > 2*4096 {
			t.Errorf("%q: %v at the cost of %d KiB", user, ok, got)
		}
	}
}

// What could not be written has not happened.
func TestFailedCommitChangesNothing(t *testing.T) {
	db := newMemDB()
	d := open(t, db, Seed{Domains: []Domain{{Name: "x.test"}}})
	if err := errors.Join(d.AddAccount(Account{Address: "a@x.test"}, "p"), d.AddAlias(Alias{Address: "b@x.test", Targets: []string{"a@x.test"}})); err != nil {
		t.Fatal(err)
	}
	epoch := d.Epoch("a@x.test")
	db.fail = true
	for i, err := range []error{
		d.AddAccount(Account{Address: "c@x.test"}, "p"), d.RemoveAccount("a@x.test"), d.SetPassword("a@x.test", "q"),
		d.AddAlias(Alias{Address: "d@x.test", Targets: []string{"a@x.test"}}), d.RemoveAlias("b@x.test"),
	} {
		if !errors.Is(err, errDisk) {
			t.Errorf("%d: %v", i, err)
		}
	}
	if _, ok := d.CheckPassword("a@x.test", "p"); !ok || d.Epoch("a@x.test") != epoch || len(d.Accounts()) != 1 || len(d.Aliases()) != 1 {
		t.Error("memory ran ahead of the disk")
	}
}

func TestHashUpgrade(t *testing.T) {
	db := newMemDB()
	seed := Seed{Domains: []Domain{{Name: "x.test"}}}
	d := open(t, db, seed)
	if err := d.AddAccount(Account{Address: "a@x.test"}, "p"); err != nil {
		t.Fatal(err)
	}
	before := string(db.data[prefixAccount+"a@x.test"])
	dearer := HashParams{Memory: 16, Time: 2, Lanes: 1}
	d, err := Open(db, seed, WithHashParams(dearer))
	if err != nil {
		t.Fatal(err)
	}
	epoch := d.Epoch("a@x.test")
	if _, ok := d.CheckPassword("a@x.test", "wrong"); ok || string(db.data[prefixAccount+"a@x.test"]) != before {
		t.Error("a failed login changed the hash")
	}
	db.fail = true
	if _, ok := d.CheckPassword("a@x.test", "p"); !ok {
		t.Error("a login failed because the better hash could not be written")
	}
	db.fail = false
	if _, ok := d.CheckPassword("a@x.test", "p"); !ok {
		t.Error("login refused")
	}
	after := string(db.data[prefixAccount+"a@x.test"])
	if !strings.Contains(after, "m=16,t=2,p=1") || d.Epoch("a@x.test") != epoch {
		t.Errorf("hash not upgraded, or it counted as a new password: %q", after)
	}
	if _, ok := d.CheckPassword("a@x.test", "p"); !ok || string(db.data[prefixAccount+"a@x.test"]) != after {
		t.Error("upgraded twice, or to something else")
	}
}

func TestAliasesChange(t *testing.T) {
	db := newMemDB()
	seed := Seed{Domains: []Domain{{Name: "x.test"}}, Accounts: declared("a@x.test"),
		Aliases: []Alias{{Address: "fixed@x.test", Targets: []string{"later@x.test"}}},
		Groups:  []Group{{Address: "g@x.test", Members: []string{"a@x.test"}}}}
	d := open(t, db, seed)
	add := func(address string, targets ...string) error {
		return d.AddAlias(Alias{Address: address, Targets: targets})
	}
	for i, tt := range []struct{ got, want error }{
		{add("One@x.test", "A@x.test", "Bob@Far.test", "a+t@x.test"), nil},
		{add("one@x.test", "a@x.test"), ErrExists},
		{add("a@x.test", "b@far.test"), ErrExists},
		{add("g@x.test", "b@far.test"), ErrExists},
		{add("two@y.test", "a@x.test"), ErrNoDomain},
		{add("two@x.test", "typo@x.test"), ErrNoRecipient},
		{add("two@x.test", "two@x.test"), ErrAliasLoop},
		{add("two@x.test", "two+x@x.test"), ErrAliasLoop},
		{add("later@x.test", "fixed@x.test"), ErrAliasLoop},
		{add("two@x.test", "not one"), ErrBadAddress},
		{add("two@x.test", "one@x.test"), nil},
		{d.RemoveAlias("fixed@x.test"), ErrDeclared},
		{d.RemoveAlias("g@x.test"), ErrDeclared},
		{d.RemoveAlias("none@x.test"), ErrNoAlias},
		{d.RemoveAlias("a@x.test"), ErrNoAlias},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("%d: %v, want %v", i, tt.got, tt.want)
		}
	}
	d = open(t, db, seed)
	want := []string{"A@x.test", "Bob@far.test", "a+t@x.test"}
	if as := d.Aliases(); len(as) != 3 || !reflect.DeepEqual(as[1], Alias{Address: "one@x.test", Targets: want}) {
		t.Errorf("after reopening: %+v", as)
	}
	if err := d.RemoveAlias("ONE@x.test"); err != nil || len(d.Aliases()) != 2 {
		t.Error(err)
	}
}

// The golden bytes of format 1: what is in some server's system.db must be readable for ever.
func TestFormat(t *testing.T) {
	golden := map[string]string{
		"directory/format":          "01",
		"directory/account/a@x":     "0305ac02" + "3d" + hex.EncodeToString([]byte(goldenHash)),
		"directory/account/bare@x":  "00000000",
		"directory/alias/all@x":     "0203614078064240592e7a7a",
		"directory/zzz-not-for-us":  "ffff",
		"directoryx/account/alien@": "ffff",
	}
	db := newMemDB()
	for k, v := range golden {
		db.data[k], _ = hex.DecodeString(v)
	}
	d := open(t, db, Seed{Domains: []Domain{{Name: "x"}}})
	want := []Account{{Address: "a@x", Legacy: true, Disabled: true, QuotaBytes: 5, QuotaMessages: 300}, {Address: "bare@x"}}
	if got := d.Accounts(); !slices.Equal(got, want) {
		t.Errorf("accounts %+v", got)
	}
	if got := d.Aliases(); len(got) != 1 || !slices.Equal(got[0].Targets, []string{"a@x", "B@Y.zz"}) {
		t.Errorf("aliases %+v", got)
	}
	e := d.accounts["a@x"]
	if hex.EncodeToString(e.encode()) != golden["directory/account/a@x"] {
		t.Errorf("encodes as %x", e.encode())
	}
	if got := hex.EncodeToString(encodeTargets([]string{"a@x", "B@Y.zz"})); got != golden["directory/alias/all@x"] {
		t.Errorf("encodes as %s", got)
	}
	if err := d.UpdateAccount("a@x", enable); err != nil {
		t.Fatal(err)
	}
	if _, ok := d.CheckPassword("a@x", "secret"); !ok {
		t.Error("the golden hash does not verify")
	}
}

const goldenHash = "$argon2id$v=19$m=8,t=1,p=1$AAECAwQFBgc$gdRySJ6s/z+M4IxXLtMUHQ"

func TestFormatDamage(t *testing.T) {
	tests := []struct {
		key, value string
		want       error
	}{
		{"directory/format", "02", ErrNewerFormat},
		{"directory/format", "8001", ErrNewerFormat},
		{"directory/format", "", ErrDamaged},
		{"directory/format", "0101", ErrDamaged},
		{"directory/account/a@x", "", ErrDamaged},
		{"directory/account/a@x", "000000", ErrDamaged},
		{"directory/account/a@x", "0000000000", ErrDamaged},
		{"directory/account/a@x", "04000000", ErrDamaged},
		{"directory/account/a@x", "000000ffffffffffffffffff01", ErrDamaged},
		{"directory/account/a@x", "00ffffffffffffffffff010000", ErrDamaged},
		{"directory/account/a@x", "0000000161", ErrBadHash},
		{"directory/alias/a@x", "", ErrDamaged},
		{"directory/alias/a@x", "02036140", ErrDamaged},
		{"directory/alias/a@x", "ffffffffff7f", ErrDamaged},
		{"directory/alias/a@x", "010161", ErrBadAddress},
	}
	for _, tt := range tests {
		db := newMemDB()
		db.data[tt.key], _ = hex.DecodeString(tt.value)
		_, err := Open(db, Seed{Domains: []Domain{{Name: "x"}}})
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), "system.db") {
			t.Errorf("%s = %s: %v, want %v", tt.key, tt.value, err, tt.want)
		}
	}
}

func TestParseHash(t *testing.T) {
	good, err := HashPassword("p", cheap)
	if err != nil || ParseHash(good) != nil {
		t.Fatal(good, err)
	}
	for _, bad := range []string{
		"", "secret", "$2y$10$abcdefghijk", "$argon2i$v=19$m=8,t=1,p=1$AAECAwQFBgc$gdRySJ6s/z+M4IxXLtMUHQ",
		strings.Replace(goldenHash, "v=19", "v=16", 1), strings.Replace(goldenHash, "m=8", "m=7", 1),
		strings.Replace(goldenHash, "m=8", "m=4000000", 1), strings.Replace(goldenHash, "t=1", "t=0", 1),
		strings.Replace(goldenHash, "p=1", "p=0", 1), strings.Replace(goldenHash, "p=1", "p=1 x", 1),
		strings.Replace(goldenHash, "AAECAwQFBgc", "AAE", 1), goldenHash + "=", goldenHash + "$",
		strings.Replace(goldenHash, "m=8", "m= 8", 1), goldenHash + strings.Repeat("A", 600),
	} {
		if err := ParseHash(bad); !errors.Is(err, ErrBadHash) {
			t.Errorf("ParseHash(%.60q) = %v", bad, err)
		}
	}
	if err := ParseHash(goldenHash); err != nil {
		t.Error(err)
	}
}

func TestProblems(t *testing.T) {
	db := newMemDB()
	seed := Seed{Domains: []Domain{{Name: "x.test"}, {Name: "old.test"}}}
	d := open(t, db, seed)
	for _, a := range []string{"a@x.test", "left@old.test", "twice@x.test"} {
		if err := d.AddAccount(Account{Address: a}, ""); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.AddAlias(Alias{Address: "al@x.test", Targets: []string{"a@x.test", "twice@x.test"}}); err != nil {
		t.Fatal(err)
	}
	if got := d.Problems(); got != nil {
		t.Errorf("a sound directory: %q", got)
	}
	d = open(t, db, Seed{Domains: []Domain{{Name: "x.test", CatchAll: "nil@x.test"}}, Accounts: declared("twice@x.test"),
		Aliases: []Alias{{Address: "l1@x.test", Targets: []string{"l2@x.test"}}, {Address: "l2@x.test", Targets: []string{"l1@x.test"}}}})
	got := strings.Join(d.Problems(), "\n")
	for _, want := range []string{"left@old.test: its domain", "twice@x.test: made by command", "l1@x.test: target", "catch-all nil@x.test"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in:\n%s", want, got)
		}
	}
	for _, seed := range []Seed{
		{Domains: []Domain{{Name: "x.test"}}}, // without anybody
		{Domains: []Domain{{Name: "x.test"}}, Accounts: declared("a@x.test"), Postmaster: "nil@x.test"},
	} {
		if got := strings.Join(open(t, nil, seed).Problems(), "\n"); !strings.Contains(got, "x.test: mail for postmaster") {
			t.Errorf("%+v: %s", seed, got)
		}
	}
	if _, ok := d.Account("left@old.test"); ok || d.RemoveAccount("left@old.test") != nil {
		t.Error("an account without domain is not found, but can be removed")
	}
}
