package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
)

// Row is one line of a comparison: a scenario with its load.
type Row struct {
	Name        string `toml:"name"`
	Scenario    string `toml:"scenario"`
	Connections int    `toml:"connections"` // 0 is 1
	Users       int    `toml:"users"`       // 0 is the reader alone, whose INBOX is filled before
	Messages    int    `toml:"messages"`
	Size        int    `toml:"size"` // 0 is a realistic spread
}

// Plan is peers.toml. The first peer is the one that ratios are about.
type Plan struct {
	Pairs  int    `toml:"pairs"`  // rounds of all peers, one after the other; 0 is 5
	Filled int    `toml:"filled"` // messages in the reader's INBOX
	Peers  []Peer `toml:"peer"`
	Rows   []Row  `toml:"row"`

	sink *sink // where mail for other domains goes
}

// Comparison is what a run found out.
type Comparison struct {
	Date    string     `json:"date"`
	System  string     `json:"system"`
	Machine Machine    `json:"machine"`
	Plan    Plan       `json:"plan"`
	Peers   []string   `json:"peers"` // names, and versions after them
	Lines   []LineItem `json:"lines"`
}

// LineItem is a row's outcome for all peers.
type LineItem struct {
	Row   Row              `json:"row"`
	Cells map[string]*Cell `json:"cells"` // by peer's name
}

// Cell is one peer in one row.
type Cell struct {
	Rates  []float64 `json:"rates"` // operations a second, a round each; for idle-latency milliseconds, for idle-hold KiB
	Median float64   `json:"median"`
	Low    float64   `json:"low"`
	High   float64   `json:"high"`
	// Ratio is the median over the rounds of the first peer's figure by this one's (turned round where less is better): above 1 the
	// first peer wins.
	Ratio float64 `json:"ratio"`
	CPU   float64 `json:"cpuMicrosPerOp"`
	Disk  float64 `json:"writeBytesPerOp"`
	Peak  int64   `json:"peakRSS"`
	Syncs float64 `json:"syncsPerOp"` // -1: not counted
	Error string  `json:"error,omitempty"`
}

// lessIsBetter are the scenarios whose figure is not a rate, with its unit.
var lessIsBetter = map[string]string{"idle-latency": "ms p99", "idle-hold": "KiB each"}

// figure is the number that a result is compared by.
func figure(r Result) float64 {
	switch r.Scenario {
	case "idle-latency":
		return float64(r.P99) / float64(time.Millisecond)
	case "idle-hold":
		return float64(r.PerConnection) / 1024
	}
	return r.PerSecond
}

func compare(args []string, out io.Writer) error {
	fs := flag.NewFlagSet("mailbench compare", flag.ContinueOnError)
	config := fs.String("config", "bench/peers.toml", "who is compared, in what")
	dir := fs.String("dir", "", "where the servers keep their data; empty: a temporary folder, removed afterwards")
	report := fs.String("markdown", "", "also write the tables to this file")
	jsonFile := fs.String("json", "", "also write everything to this file")
	chart := fs.String("svg", "", "also draw the ratios to this file")
	pairs := fs.Int("pairs", 0, "rounds, instead of the configuration's")
	only := fs.String("only", "", "rows whose names begin so, comma-separated")
	if err := fs.Parse(args); err != nil {
		return err
	}
	plan, err := readPlan(*config)
	if err != nil {
		return err
	}
	if *pairs > 0 {
		plan.Pairs = *pairs
	}
	if *only != "" {
		plan.Rows = slices.DeleteFunc(plan.Rows, func(r Row) bool {
			return !slices.ContainsFunc(strings.Split(*only, ","), func(p string) bool { return strings.HasPrefix(r.Name, p) })
		})
	}
	if *dir == "" {
		temp, err := os.MkdirTemp("", "mailbench")
		if err != nil {
			return err
		}
		defer os.RemoveAll(temp)
		if err := os.Chmod(temp, 0o755); err != nil {
			return err
		}
		*dir = temp
	}
	c, err := plan.run(*dir, out)
	if err != nil {
		return err
	}
	c.markdown(out)
	var files []error
	if *report != "" {
		var b strings.Builder
		b.WriteString(pageHead)
		if *chart != "" {
			fmt.Fprintf(&b, "![ratios](%s)\n\n", filepath.Base(*chart))
		}
		c.markdown(&b)
		files = append(files, os.WriteFile(*report, []byte(b.String()), 0o644))
	}
	if *jsonFile != "" {
		text, _ := json.MarshalIndent(c, "", "  ")
		files = append(files, os.WriteFile(*jsonFile, append(text, '\n'), 0o644))
	}
	if *chart != "" {
		files = append(files, os.WriteFile(*chart, []byte(c.svg()), 0o644))
	}
	for _, err := range files {
		if err != nil {
			return err
		}
	}
	return nil
}

const pageHead = `# Benchmarks

Written by "make bench" (mailbench compare -config bench/peers.toml), never by hand: rows in which we lose stay in. Every answer that was
timed was verified. The peers are Debian's packages with their default durability: Dovecot syncs messages before it answers, flag
changes later; Postfix syncs its queue file. mailsrv syncs everything it answers OK to.

`

func readPlan(file string) (p Plan, err error) {
	f, err := os.Open(file)
	if err != nil {
		return p, err
	}
	defer f.Close()
	if err := toml.NewDecoder(f).DisallowUnknownFields().Decode(&p); err != nil {
		return p, fmt.Errorf("%s: %w", file, err)
	}
	if p.Pairs == 0 {
		p.Pairs = 5
	}
	if len(p.Peers) < 1 || len(p.Rows) < 1 {
		return p, fmt.Errorf("%s: needs at least one [[peer]] and one [[row]]", file)
	}
	for _, r := range p.Rows {
		if scenarios[r.Scenario] == nil {
			return p, fmt.Errorf("%s: row %q: no scenario %q", file, r.Name, r.Scenario)
		}
	}
	return p, nil
}

const readerFormat, writerFormat = "reader%.0d@" + benchDomain, "u%d@" + benchDomain

// run starts all peers, fills the readers' mailboxes, and goes through the rows.
func (p Plan) run(dir string, progress io.Writer) (*Comparison, error) {
	c := &Comparison{Date: time.Now().UTC().Format("2006-01-02 15:04 MST"), System: systemText(), Plan: p}
	var err error
	if c.Machine, err = measureMachine(dir); err != nil {
		return nil, err
	}
	users := []string{fmt.Sprintf(readerFormat, 0)}
	for u := range p.mostUsers() {
		users = append(users, fmt.Sprintf(writerFormat, u))
	}
	sink, err := startSink()
	if err != nil {
		return nil, err
	}
	defer sink.close()
	p.sink = sink
	var servers []*server
	defer func() {
		for _, s := range servers {
			s.close()
		}
	}()
	for _, peer := range p.Peers {
		fmt.Fprintln(progress, "starting", peer.Name)
		s, err := peer.start(dir, sink.port(), users)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
		c.Peers = append(c.Peers, peer.Name+": "+s.version)
		if err := p.fill(s); err != nil {
			return nil, fmt.Errorf("fill %s: %w", peer.Name, err)
		}
	}
	for _, row := range p.Rows {
		fmt.Fprintln(progress, "row", row.Name)
		c.Lines = append(c.Lines, p.line(row, servers))
	}
	return c, nil
}

func (p Plan) mostUsers() int {
	most := 1
	for _, r := range p.Rows {
		most = max(most, r.Users)
	}
	return most
}

// bench is a row's load against a server.
func (p Plan) bench(r Row, s *server) *Bench {
	b := &Bench{SMTP: s.smtp, LMTP: s.lmtp, IMAP: s.imap, Users: readerFormat, UserCount: 1, Password: benchPassword, Target: s.Name,
		Submission: s.submission, Login: s.login, sink: p.sink,
		Connections: max(r.Connections, 1), Messages: max(r.Messages, 1), PIDs: s.roots}
	if r.Users > 0 {
		b.Users, b.UserCount = writerFormat, r.Users
	} else if r.Scenario != "login-storm" && r.Scenario != "idle-latency" {
		b.Messages = p.Filled // what the reader's INBOX holds
	}
	b.Mail = NewGenerator(Shape{Seed: 1, Fixed: r.Size})
	return b
}

func (p Plan) fill(s *server) error {
	if p.Filled == 0 {
		return nil
	}
	b := p.bench(Row{Connections: 4}, s)
	if s.Kind == "postfix" {
		return nil // its Dovecot is compared by itself
	}
	_, err := b.appendMail("fill", true)
	return err
}

// line runs one row: a warm-up round, then rounds in which each peer has its turn, so that what else the machine does
// meets all of them alike.
func (p Plan) line(row Row, servers []*server) LineItem {
	item := LineItem{Row: row, Cells: map[string]*Cell{}}
	for round := range p.Pairs + 1 {
		for _, s := range servers {
			if !row.fits(s) {
				continue
			}
			cell := item.Cells[s.Name]
			if cell == nil {
				cell = &Cell{Syncs: -1}
				item.Cells[s.Name] = cell
			}
			if cell.Error != "" {
				continue
			}
			before := costOf(s.roots)
			r, err := scenarios[row.Scenario](p.bench(row, s))
			if err != nil {
				cell.Error = err.Error()
				continue
			}
			if round > 0 {
				r.Cost = costOf(s.roots).sub(before)
				cell.add(r)
			}
		}
	}
	for _, s := range servers {
		if cell := item.Cells[s.Name]; cell != nil && cell.Error == "" && row.Users > 0 && row.Messages > 0 {
			p.countSyncs(row, s, cell)
		}
	}
	item.finish(servers[0].Name)
	return item
}

// countSyncs runs a row once more, untimed and under strace.
func (p Plan) countSyncs(row Row, s *server, cell *Cell) {
	small := row
	small.Messages = min(row.Messages, 300)
	n, err := s.syncs(func() error {
		_, err := scenarios[small.Scenario](p.bench(small, s))
		return err
	})
	if err == nil && n >= 0 {
		cell.Syncs = float64(n) / float64(small.Messages)
	}
}

// fits reports whether the server has the listener that the row's scenario needs, and mail to read.
func (r Row) fits(s *server) bool {
	switch {
	case r.Scenario == "relay":
		return s.submission != ""
	case strings.HasPrefix(r.Scenario, "smtp"):
		return s.smtp != ""
	case s.Kind == "postfix":
		return false
	}
	return s.imap != ""
}

func (c *Cell) add(r Result) {
	c.Rates = append(c.Rates, figure(r))
	n, ops := float64(len(c.Rates)), float64(max(r.Ops, 1))
	c.CPU += (float64(r.Cost.CPU.Microseconds())/ops - c.CPU) / n
	c.Disk += (float64(r.Cost.WriteBytes)/ops - c.Disk) / n
	c.Peak = max(c.Peak, r.Cost.PeakRSS)
}

// finish computes what the table says.
func (l *LineItem) finish(first string) {
	for _, c := range l.Cells {
		if len(c.Rates) == 0 {
			continue
		}
		c.Median, c.Low, c.High = median(slices.Clone(c.Rates)), slices.Min(c.Rates), slices.Max(c.Rates)
		ours := l.Cells[first]
		if ours == nil || len(ours.Rates) < len(c.Rates) {
			continue
		}
		ratios := make([]float64, len(c.Rates))
		for i := range ratios {
			ratios[i] = ours.Rates[i] / c.Rates[i]
			if lessIsBetter[l.Row.Scenario] != "" {
				ratios[i] = c.Rates[i] / ours.Rates[i]
			}
		}
		c.Ratio = median(ratios)
	}
}

func systemText() string {
	kernel, _ := exec.Command("uname", "-sr").Output()
	return fmt.Sprintf("%s, %d cores, %s", strings.TrimSpace(string(kernel)), runtime.NumCPU(), runtime.Version())
}

// markdown writes the tables.
func (c *Comparison) markdown(w io.Writer) {
	fmt.Fprintf(w, "%s; %s; %d rounds after a warm-up, the servers in turn; %d messages in the mailbox that is read.\n\n", c.Date, c.System, c.Plan.Pairs, c.Plan.Filled)
	for _, p := range c.Peers {
		fmt.Fprintf(w, "- %s\n", p)
	}
	m := c.Machine
	fmt.Fprintf(w, "\nThe machine in the same run: %.0f appends of 4 KiB synced a second, %.0f files created and synced a second, %.0f MB/s written, "+
		"%.0f MB/s copied in memory, %.0f MB/s and %.0f round trips a second over loopback.\n\n", m.SyncsPerSecond, m.CreatesPerS, m.WriteMBps, m.CopyMBps, m.LoopbackMBps, m.RoundTripsPerS)
	fmt.Fprint(w, "| row |")
	for _, p := range c.Plan.Peers {
		fmt.Fprintf(w, " %s |", p.Name)
	}
	for _, p := range c.Plan.Peers[1:] {
		fmt.Fprintf(w, " × %s |", p.Name)
	}
	fmt.Fprintf(w, "\n|---|%s\n", strings.Repeat("---:|", 2*len(c.Plan.Peers)-1))
	for _, l := range c.Lines {
		unit := lessIsBetter[l.Row.Scenario]
		if unit == "" {
			unit = "/s"
		}
		fmt.Fprintf(w, "| %s (%s) |", l.Row.Name, unit)
		for _, p := range c.Plan.Peers {
			fmt.Fprintf(w, " %s |", l.Cells[p.Name].text())
		}
		for _, p := range c.Plan.Peers[1:] {
			if cell := l.Cells[p.Name]; cell != nil && cell.Ratio > 0 {
				fmt.Fprintf(w, " **%.2f** |", cell.Ratio)
			} else {
				fmt.Fprint(w, " |")
			}
		}
		fmt.Fprintln(w)
	}
	fmt.Fprint(w, "\nA figure is the median with the lowest and highest round; × is ours by theirs (theirs by ours where less is better), the median of the rounds' ratios: above 1 we are ahead.\n\n")
	fmt.Fprint(w, "| row | server | CPU µs/op | disk bytes/op | syncs/op | peak memory MiB |\n|---|---|---:|---:|---:|---:|\n")
	for _, l := range c.Lines {
		for _, p := range c.Plan.Peers {
			cell := l.Cells[p.Name]
			if cell == nil || len(cell.Rates) == 0 {
				continue
			}
			syncs := "–"
			if cell.Syncs >= 0 {
				syncs = fmt.Sprintf("%.2f", cell.Syncs)
			}
			fmt.Fprintf(w, "| %s | %s | %.0f | %.0f | %s | %.0f |\n", l.Row.Name, p.Name, cell.CPU, cell.Disk, syncs, float64(cell.Peak)/(1<<20))
		}
	}
}

func (c *Cell) text() string {
	switch {
	case c == nil:
		return "–"
	case c.Error != "":
		return "failed: " + strings.NewReplacer("|", "/", "\n", " ").Replace(c.Error[:min(len(c.Error), 120)])
	}
	return fmt.Sprintf("%s (%s–%s)", number(c.Median), number(c.Low), number(c.High))
}

// number prints three significant digits or so.
func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

// svg draws the ratios as bars on a logarithmic scale: right of the middle we are ahead.
func (c *Comparison) svg() string {
	type bar struct {
		label string
		ratio float64
	}
	var bars []bar
	for _, l := range c.Lines {
		for _, p := range c.Plan.Peers[1:] {
			if cell := l.Cells[p.Name]; cell != nil && cell.Ratio > 0 {
				bars = append(bars, bar{l.Row.Name + " × " + p.Name, cell.Ratio})
			}
		}
	}
	const row, left, width, decade = 20, 320, 900, 180.0
	var b strings.Builder
	height := (len(bars)+2)*row + 10
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="12">`, width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`, width, height)
	middle := float64(left) + decade
	for _, tick := range []float64{0.1, 1, 10, 100} {
		x := middle + decade*math.Log10(tick)
		fmt.Fprintf(&b, `<line x1="%.1f" y1="0" x2="%.1f" y2="%d" stroke="#ccc"/><text x="%.1f" y="%d" text-anchor="middle">×%g</text>`, x, x, height-row, x, height-6, tick)
	}
	for i, bar := range bars {
		x := decade * max(-1, min(2, math.Log10(bar.ratio)))
		y, color := i*row+4, "#2a7"
		if x < 0 {
			color = "#c43"
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s</text>`, left-8, y+12, xmlText(bar.label))
		fmt.Fprintf(&b, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`, middle+min(x, 0), y, math.Abs(x), row-6, color)
		fmt.Fprintf(&b, `<text x="%.1f" y="%d">%.2f</text>`, middle+max(x, 0)+4, y+12, bar.ratio)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func xmlText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}
