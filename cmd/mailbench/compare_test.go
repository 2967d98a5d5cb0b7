package main

import (
	"encoding/xml"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMedianAndRatios(t *testing.T) {
	for _, c := range []struct {
		v    []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(c.v); got != c.want {
			t.Errorf("median = %v, wanted %v", got, c.want)
		}
	}
	// The ratio is of pairs: a slow minute hits both servers and must not show.
	rate := LineItem{Row: Row{Scenario: "lmtp-in"}, Cells: map[string]*Cell{
		"us": {Rates: []float64{200, 20, 100}}, "them": {Rates: []float64{100, 10, 50}}, "broken": {Error: "x"}}}
	rate.finish("us")
	if c := rate.Cells["them"]; c.Ratio != 2 || c.Median != 50 || c.Low != 10 || c.High != 100 {
		t.Errorf("cell = %+v", *c)
	}
	less := LineItem{Row: Row{Scenario: "idle-latency"}, Cells: map[string]*Cell{
		"us": {Rates: []float64{1}}, "them": {Rates: []float64{500}}}}
	less.finish("us")
	if got := less.Cells["them"].Ratio; got != 500 {
		t.Errorf("where less is better the ratio is %v, wanted 500", got)
	}
}

func TestReadPlan(t *testing.T) {
	if p, err := readPlan("../../bench/peers.toml"); err != nil || p.Pairs != 5 || len(p.Peers) < 2 {
		t.Fatalf("bench/peers.toml: %+v, %v", p, err)
	}
	peer := "[[peer]]\nname = \"a\"\nkind = \"mailsrv\"\n"
	for text, want := range map[string]string{
		peer: "at least one",
		peer + "[[row]]\nname = \"x\"\nscenario = \"nonsense\"\n": "no scenario",
		peer + "typo = 1\n": "strict",
	} {
		file := filepath.Join(t.TempDir(), "p.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPlan(file); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, wanted %q", text, err, want)
		}
	}
}

func TestReports(t *testing.T) {
	c := Comparison{Plan: Plan{Pairs: 1, Peers: []Peer{{Name: "us"}, {Name: "th<em"}}}, Lines: []LineItem{
		{Row: Row{Name: "good", Scenario: "lmtp-in"}, Cells: map[string]*Cell{"us": {Rates: []float64{2000}}, "th<em": {Rates: []float64{500}}}},
		{Row: Row{Name: "bad", Scenario: "lmtp-in"}, Cells: map[string]*Cell{"us": {Rates: []float64{1}}, "th<em": {Error: "lies | lies"}}},
	}}
	for i := range c.Lines {
		c.Lines[i].finish("us")
	}
	var table strings.Builder
	c.markdown(&table)
	for _, want := range []string{"| good (/s) | 2000 (2000–2000) | 500 (500–500) | **4.00** |", "failed: lies / lies"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table lacks %q:\n%s", want, table.String())
		}
	}
	picture := c.svg()
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		if _, err := d.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("svg: %v\n%s", err, picture)
		}
	}
	if !strings.Contains(picture, "4.00") || strings.Contains(picture, "bad ×") {
		t.Errorf("svg draws the wrong bars:\n%s", picture)
	}
}

func TestCostOfThisProcess(t *testing.T) {
	c := costOf([]int{os.Getpid()})
	if c.PeakRSS < 1<<20 || c.PSS <= 0 {
		t.Errorf("cost of this very process = %+v", c)
	}
	if got := tree([]int{os.Getppid()}); len(got) < 2 {
		t.Errorf("the parent's tree %v lacks this process", got)
	}
}

func TestPostfixOnlyTakesSMTP(t *testing.T) {
	postfix := &server{Peer: Peer{Kind: "postfix"}, smtp: "x", imap: "y"}
	dovecot := &server{Peer: Peer{Kind: "dovecot"}, lmtp: "x", imap: "y"}
	for scenario, want := range map[string][2]bool{"smtp-in": {true, false}, "lmtp-in": {false, true}, "select": {false, true}} {
		if got := [2]bool{(Row{Scenario: scenario}).fits(postfix), (Row{Scenario: scenario}).fits(dovecot)}; got != want {
			t.Errorf("%s: postfix, dovecot = %v, wanted %v", scenario, got, want)
		}
	}
}
