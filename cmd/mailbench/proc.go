package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Cost is what a process tree has used up: read before and after a scenario, the difference is the scenario's.
type Cost struct {
	CPU        time.Duration `json:"cpu"`        // user and system time
	WriteBytes int64         `json:"writeBytes"` // handed to the disk (write_bytes of proc(5)), page cache included once
	PeakRSS    int64         `json:"peakRSS"`    // sum of the processes' high-water marks, bytes
	PSS        int64         `json:"pss"`        // memory with shared pages divided among their users, bytes
}

// sub is the cost since an earlier reading; memory stays as it is now. Processes that ended in between took their counts
// with them, so a server of many short-lived processes looks cheaper than it is.
func (c Cost) sub(earlier Cost) Cost {
	c.CPU -= earlier.CPU
	c.WriteBytes -= earlier.WriteBytes
	return c
}

// clockTick is USER_HZ, which Linux fixes at 100 for what /proc shows.
const clockTick = 10 * time.Millisecond

// costOf reads /proc for the trees below the roots. Processes that vanish meanwhile are left out.
func costOf(roots []int) Cost {
	var c Cost
	for _, pid := range tree(roots) {
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		if stat, err := os.ReadFile(dir + "/stat"); err == nil {
			// The command's name may hold spaces and parentheses: fields are counted from the last ")".
			f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			for _, i := range []int{11, 12, 13, 14} { // utime, stime, and those of children waited for
				n, _ := strconv.ParseInt(f[i], 10, 64)
				c.CPU += time.Duration(n) * clockTick
			}
		}
		c.WriteBytes += procNumber(dir+"/io", "write_bytes:", 1)
		c.PeakRSS += procNumber(dir+"/status", "VmHWM:", 1024)
		c.PSS += procNumber(dir+"/smaps_rollup", "Pss:", 1024)
	}
	return c
}

func procNumber(file, field string, unit int64) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return n * unit
		}
	}
	return 0
}

// tree is the roots and all their descendants.
func tree(roots []int) []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent := procNumber(fmt.Sprintf("/proc/%d/status", pid), "PPid:", 1); parent > 0 {
			children[int(parent)] = append(children[int(parent)], pid)
		}
	}
	all := append([]int(nil), roots...)
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
