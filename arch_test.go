// The repository's own rules, as tests.
package mailsrv

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers says who may import whom. It is a statement of policy, from the leaves up: a package may import what stands in its
// line and nothing else of ours. A name in capitals stands for its own line. Three rights are words of their own: "net" (open
// connections), "files" (open, make, remove files other than through internal/disk) and "programs" (run them). Tests may import
// what they like.
//
//	cmd → daemons → delivery, queue → auth, directory, storage → message, wire, disk
const layers = `
	internal/disk:          files
	internal/message:       -
	internal/wire:          net
	internal/resolve:       net
	internal/observe:       net
	internal/tlsconf:       internal/disk net

	storage/kv:             files
	storage/blob:           internal/disk
	storage:                internal/disk internal/message storage/kv storage/blob
	storage/kv/kvtest:      internal/disk storage/kv
	storage/blob/blobtest:  internal/disk storage/blob

	internal/directory:     storage/kv
	internal/auth:          internal/directory
	internal/config:        internal/directory net files
	internal/delivery:      internal/directory internal/message storage
	internal/mailauth:      internal/disk internal/message internal/resolve
	internal/queue:         internal/mailauth internal/delivery internal/directory internal/disk internal/message storage storage/kv
	internal/resolve/resolvetest: net
	internal/relay:         internal/message internal/queue internal/resolve storage/kv net
	internal/outside:       internal/mailauth internal/resolve net

	BELOW DAEMONS:          internal/auth internal/delivery internal/directory internal/message internal/wire storage net
	smtpd:                  BELOW DAEMONS
	imapd:                  BELOW DAEMONS
	legacyd:                BELOW DAEMONS

	EVERYTHING:             BELOW DAEMONS smtpd imapd legacyd internal/config internal/disk internal/observe internal/tlsconf internal/mailauth internal/outside internal/queue internal/relay internal/resolve storage/kv files
	cmd/mailsrv:            EVERYTHING
	cmd/mailbench:          net files programs
	cmd/coursemail:         net
	e2e:                    -
`

const module = "mailsrv"

type listed struct {
	ImportPath, Dir string
	GoFiles         []string
	Imports         []string
}

func TestImports(t *testing.T) {
	allowed := parseLayers(t, layers)
	packages := list(t)
	for _, p := range packages {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		may, known := allowed[name]
		if !known {
			t.Errorf("%s: has no line in the policy; write down what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			switch right := rightTo(imported); {
			case right != "" && !may[right]:
				t.Errorf("%s: imports %s, which is %q, without the right to it", name, imported, right)
			case strings.HasPrefix(imported, module+"/") && !may[strings.TrimPrefix(imported, module+"/")]:
				t.Errorf("%s: may not import %s", name, strings.TrimPrefix(imported, module+"/"))
			}
		}
		if !may["files"] {
			for _, use := range filesOpened(t, p) {
				t.Errorf("%s: works on files past internal/disk", use)
			}
		}
	}
	for name := range allowed {
		isThere := slices.ContainsFunc(packages, func(p listed) bool { return p.ImportPath == module+"/"+name })
		if !isThere && strings.ToUpper(name) != name {
			t.Logf("%s: has a line in the policy, but is not built yet", name)
		}
	}
}

// rightTo names the right that importing a package of the system takes. Those that only parse and hold values take none.
func rightTo(imported string) string {
	switch imported {
	case "net/netip", "net/mail", "net/textproto", "net/url":
		return ""
	case "net", "crypto/tls", "golang.org/x/net/proxy", "golang.org/x/net/http2":
		return "net"
	case "os/exec":
		return "programs"
	case "plugin":
		return "foreign code, which nobody has"
	case "go.etcd.io/bbolt", "io/ioutil":
		return "files"
	}
	if strings.HasPrefix(imported, "net/") {
		return "net"
	}
	return ""
}

// osFiles are the functions of package os that work on named files.
var osFiles = strings.Fields(`Chdir Chmod Chown Chtimes Create CreateTemp CopyFS DirFS Lchown Link Mkdir MkdirAll MkdirTemp NewFile
	Open OpenFile OpenInRoot OpenRoot ReadDir ReadFile Readlink Remove RemoveAll Rename Symlink Truncate WriteFile`)

func filesOpened(t *testing.T, p listed) (uses []string) {
	for _, file := range p.GoFiles {
		fset := token.NewFileSet()
		parsed, err := parser.ParseFile(fset, filepath.Join(p.Dir, file), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && x.Name == "os" && x.Obj == nil && slices.Contains(osFiles, s.Sel.Name) {
					uses = append(uses, fmt.Sprintf("%s: os.%s", fset.Position(s.Pos()), s.Sel.Name))
				}
			}
			return true
		})
		for _, spec := range parsed.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); name == "os" && spec.Name != nil {
				t.Errorf("%s: imports os under another name", fset.Position(spec.Pos()))
			}
		}
	}
	return uses
}

// parseLayers returns what each package may import, names in capitals resolved.
func parseLayers(t *testing.T, policy string) map[string]map[string]bool {
	allowed := map[string]map[string]bool{}
	for line := range strings.Lines(policy) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		name, list, found := strings.Cut(line, ":")
		if !found || allowed[name] != nil {
			t.Fatalf("policy: %q", line)
		}
		may := map[string]bool{}
		for group, rights := range allowed {
			if strings.ToUpper(group) == group && strings.Contains(list, group) {
				list = strings.ReplaceAll(list, group, " ")
				for right := range rights {
					may[right] = true
				}
			}
		}
		for _, right := range strings.Fields(list) {
			if right != "-" && right != "net" && right != "files" && right != "programs" && allowed[right] == nil {
				t.Fatalf("policy: %s: %s must be declared above, so that the arrows point down", name, right)
			}
			may[right] = true
		}
		allowed[name] = may
	}
	return allowed
}

func list(t *testing.T) (packages []listed) {
	out, err := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 { // else only tests
			packages = append(packages, p)
		}
	}
}

// The test itself: a policy that allowed everything would pass for ever.
func TestPolicyBites(t *testing.T) {
	allowed := parseLayers(t, layers)
	for name, may := range allowed {
		daemon := slices.Contains([]string{"smtpd", "imapd", "legacyd"}, name)
		for _, other := range []string{"smtpd", "imapd", "legacyd"} {
			if daemon && may[other] {
				t.Errorf("%s may import %s, a daemon", name, other)
			}
		}
		if top, _ := path.Split(name); may["internal/config"] && top != "cmd/" && name != "EVERYTHING" {
			t.Errorf("%s may import config, which is for cmd only", name)
		}
		if may["net"] && (name == "storage" || strings.HasPrefix(name, "storage/")) {
			t.Errorf("%s may open connections", name)
		}
	}
	for imported, want := range map[string]string{"net": "net", "net/http": "net", "net/netip": "", "crypto/tls": "net", "os": "", "sort": ""} {
		if got := rightTo(imported); got != want {
			t.Errorf("%s is %q, want %q", imported, got, want)
		}
	}
}
