package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// Reads lines of "unix seconds TAB zone TAB cron time"; writes the next firing, "none", or "error" and why.
func main() {
	in := bufio.NewScanner(os.Stdin)
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	for in.Scan() {
		parts := strings.SplitN(in.Text(), "\t", 3)
		s, _ := strconv.ParseInt(parts[0], 10, 64)
		loc, err := time.LoadLocation(parts[1])
		if err != nil {
			panic(err)
		}
		spec := parts[2]
		sched, err := cron.ParseStandard(spec)
		if err != nil {
			fmt.Fprintf(out, "error %s\n", err)
			continue
		}
		t := sched.Next(time.Unix(s, 0).In(loc))
		if t.IsZero() {
			fmt.Fprintln(out, "none")
		} else {
			fmt.Fprintln(out, t.Unix())
		}
	}
}
