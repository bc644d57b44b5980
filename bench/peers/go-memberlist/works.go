package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/ioutil"
	"os"
	"os/exec"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	patience = 60 * time.Second
	// Broadcasts, and reliable messages, that may be under way.
	broadcastWindow = 1000
	directWindow    = 4000
	// What has not moved for so long is lost.
	still = 2500 * time.Millisecond
	after = 6 * time.Second
)

type figures map[string]interface{}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

type usage struct {
	began time.Time
	cpu   float64
	wire  [2]float64
}

func begin() usage { return usage{time.Now(), cpuSeconds(), loopback()} }

func (u usage) cpuSeconds() float64 { return cpuSeconds() - u.cpu }

func cpuSeconds() float64 {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return float64(r.Utime.Sec+r.Stime.Sec) + float64(r.Utime.Usec+r.Stime.Usec)/1e6
}

func loopback() [2]float64 {
	table, _ := ioutil.ReadFile("/proc/self/net/dev")
	for _, line := range strings.Split(string(table), "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "lo:") {
			words := strings.Fields(line[3:])
			bytes, _ := strconv.ParseFloat(words[0], 64)
			packets, _ := strconv.ParseFloat(words[1], 64)
			return [2]float64{bytes, packets}
		}
	}
	return [2]float64{}
}

// Memory of this process: all that is resident, and what of it are no pages of files.
func residentKB() [2]float64 {
	return [2]float64{statusKB("VmRSS:"), statusKB("RssAnon:")}
}

func statusKB(field string) float64 {
	status, _ := ioutil.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if strings.HasPrefix(line, field) {
			kb, _ := strconv.ParseFloat(strings.Fields(line)[1], 64)
			return kb
		}
	}
	return 0
}

type cluster struct {
	nodes []*node
	tally *tally
	took  time.Duration
}

func form(count int, settle float64, variant string) (*cluster, error) {
	began, c := time.Now(), &cluster{tally: newTally()}
	for i := 0; i < count; i++ {
		seed := ""
		if i > 0 {
			seed = c.nodes[0].address()
		}
		n, err := start(fmt.Sprintf("n%d", i), seed, variant, count, &heard{node: i, all: c.tally})
		if err != nil {
			return nil, err
		}
		c.nodes = append(c.nodes, n)
	}
	if err := c.allList(count, began.Add(patience)); err != nil {
		return nil, err
	}
	c.took = time.Since(began)
	time.Sleep(seconds(settle))
	return c, nil
}

func (c *cluster) allList(count int, end time.Time) error {
	for i, n := range c.nodes {
		for n.live() != count {
			if time.Now().After(end) {
				ready := 0
				for _, other := range c.nodes {
					if other.live() == count {
						ready++
					}
				}
				return fmt.Errorf("%d of %d were ready after %s; n%d listed %d", ready, len(c.nodes), patience, i, n.live())
			}
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

func join(o options) (figures, error) {
	usage := begin()
	c, err := form(o.nodes, 0, o.variant)
	if err != nil {
		return nil, err
	}
	return figures{"seconds": c.took.Seconds(), "cpu_ms_a_node": usage.cpuSeconds() * 1e3 / float64(o.nodes)}, nil
}

func broadcast(o options) (figures, error) {
	c, err := form(o.nodes, o.settle, o.variant)
	if err != nil {
		return nil, err
	}
	found := figures{}
	said := c.latencies(o, found)
	c.flood(o, said, found)
	return found, nil
}

// One at a time, by turns: until the last has heard it. Returns how many were said.
func (c *cluster) latencies(o options, found figures) int {
	others, said, missed := o.nodes-1, 0, 0
	var times []float64
	for end := time.Now().Add(seconds(o.seconds)); time.Now().Before(end) && said < 200; said++ {
		origin, before, began := said%o.nodes, c.tally.count(), time.Now()
		c.nodes[origin].broadcast(message(origin, said, o.bytes))
		if reached, ok := c.tally.reach(before+others, 2*still, began.Add(after)); ok {
			times = append(times, reached.Sub(began).Seconds()*1e3)
		} else {
			missed += before + others - c.tally.count()
		}
	}
	sort.Float64s(times)
	found["said_singly"], found["lost_singly_percent"] = said, 100*float64(missed)/float64(said*others)
	if len(times) > 0 {
		found["p50_ms"], found["worst_ms"] = times[len(times)/2], times[len(times)-1]
	}
	return said
}

type flow struct {
	said, heard         int
	seconds, cpuSeconds float64
	wire                [2]float64
}

// As fast as the node takes it, with at most a window under way; numbers from `first` on.
func (c *cluster) flow(o options, first, atMost int) flow {
	others, before, usage := len(c.nodes)-1, c.tally.count(), begin()
	end, said, givenUp := usage.began.Add(seconds(o.seconds)), 0, 0
	for said < atMost && time.Now().Before(end) {
		c.nodes[0].broadcast(message(0, first+said, o.bytes))
		said++
		if said <= broadcastWindow {
			continue
		}
		wanted := before + (said-broadcastWindow)*others - givenUp
		if c.tally.count() < wanted {
			if _, ok := c.tally.reach(wanted, still, end); !ok && time.Now().Before(end) {
				givenUp = said*others - (c.tally.count() - before)
			}
		}
	}
	c.tally.reach(before+said*others, still, time.Now().Add(after))
	wire := loopback()
	return flow{said, c.tally.count() - before, c.tally.lastAt().Sub(usage.began).Seconds(), usage.cpuSeconds(),
		[2]float64{wire[0] - usage.wire[0], wire[1] - usage.wire[1]}}
}

func (c *cluster) flood(o options, first int, found figures) {
	f, others := c.flow(o, first, 1<<40), float64(o.nodes-1)
	if f.heard == 0 {
		found["lost_percent"] = 100
		return
	}
	count := float64(f.heard)
	found["per_second"], found["cpu_us"] = count/others/f.seconds, f.cpuSeconds*1e6/count
	found["lost_percent"], found["said"] = 100*(1-count/(float64(f.said)*others)), f.said
	found["wire_bytes"], found["packets"] = f.wire[0]/count, f.wire[1]/count
}

func bulk(o options) (figures, error) {
	c, err := form(o.nodes, o.settle, o.variant)
	if err != nil {
		return nil, err
	}
	before := residentKB()
	f := c.flow(o, 0, o.messages)
	grown := (residentKB()[0] - before[0]) / float64(o.nodes)
	found := figures{"heard": float64(f.heard) / float64(o.nodes-1), "grown_kb_a_node": grown, "grown_kb_a_node_after_all": nil}
	if f.said == o.messages {
		found["grown_kb_a_node_after_all"] = grown
	}
	return found, nil
}

func direct(o options) (figures, error) {
	c, err := form(2, o.settle, o.variant)
	if err != nil {
		return nil, err
	}
	usage, said := begin(), 0
	for end := usage.began.Add(seconds(o.seconds)); time.Now().Before(end); {
		c.nodes[0].send(c.nodes[1], message(0, said, o.bytes), o.reliable)
		said++
		if o.reliable && c.tally.count()+directWindow < said {
			c.tally.reach(said-directWindow, still, end)
		}
	}
	c.tally.reach(said, still, time.Now().Add(after))
	count := float64(c.tally.count())
	if count == 0 {
		return nil, errors.New("nothing was heard")
	}
	return figures{"per_second": count / c.tally.lastAt().Sub(usage.began).Seconds(),
		"cpu_us": usage.cpuSeconds() * 1e6 / count, "lost_percent": 100 * (1 - count/float64(said))}, nil
}

func idle(o options) (figures, error) {
	before := residentKB()
	c, err := form(o.nodes, o.settle, o.variant)
	if err != nil {
		return nil, err
	}
	usage := begin()
	time.Sleep(seconds(o.seconds))
	wire, elapsed, count := loopback(), time.Since(usage.began).Seconds(), float64(len(c.nodes))
	after := residentKB()
	return figures{"cpu_percent": 100 * usage.cpuSeconds() / elapsed / count,
		"wire_bytes": (wire[0] - usage.wire[0]) / elapsed / count, "packets": (wire[1] - usage.wire[1]) / elapsed / count,
		"resident_kb": (after[0] - before[0]) / count, "own_kb": (after[1] - before[1]) / count}, nil
}

// A member is killed, in a process of its own; the others are looked at until they know.
func detect(o options) (figures, error) {
	c, err := form(o.nodes-1, 0, o.variant)
	if err != nil {
		return nil, err
	}
	var first, all []float64
	untold := 0
	for trial := 0; trial < o.trials; trial++ {
		victim := exec.Command(os.Args[0], "member", "seed="+c.nodes[0].address(), fmt.Sprintf("name=victim%d", trial),
			fmt.Sprintf("nodes=%d", o.nodes), "variant="+o.variant)
		// Held open: it lives until its input ends.
		stdin, err := victim.StdinPipe()
		if err == nil {
			err = victim.Start()
		}
		if err != nil {
			return nil, err
		}
		err = c.allList(o.nodes, time.Now().Add(patience))
		if err == nil {
			time.Sleep(seconds(o.settle + 0.37*float64(trial)))
		}
		began := time.Now()
		_ = victim.Process.Kill()
		_ = victim.Wait()
		_ = stdin.Close()
		if err != nil {
			return nil, err
		}
		told := map[int]float64{}
		for len(told) < len(c.nodes) && time.Since(began) < patience {
			for i, n := range c.nodes {
				if _, ok := told[i]; !ok && n.live() < o.nodes {
					told[i] = time.Since(began).Seconds()
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		var times []float64
		for _, at := range told {
			times = append(times, at)
		}
		sort.Float64s(times)
		untold += len(c.nodes) - len(times)
		if len(times) > 0 {
			first = append(first, times[0])
		}
		if len(times) == len(c.nodes) {
			all = append(all, times[len(times)-1])
		}
		if trial+1 < o.trials {
			if err := c.allList(o.nodes-1, time.Now().Add(patience)); err != nil {
				return nil, err
			}
		}
	}
	sort.Float64s(first)
	sort.Float64s(all)
	found := figures{"untold": untold}
	if len(first) > 0 {
		found["first_s"] = first[len(first)/2]
	}
	if len(all) > 0 {
		found["all_s"], found["worst_s"] = all[len(all)/2], all[len(all)-1]
	}
	return found, nil
}

// The first other member is what a cold start waits for.
func pause(listed int) time.Duration {
	if listed < 2 {
		return time.Millisecond
	}
	return 5 * time.Millisecond
}

// One node, until standard input ends. A line whenever the number of members that it lists has changed.
func member(o options) error {
	n, err := start(o.name, o.seed, o.variant, o.nodes, &heard{node: 65000, all: newTally()})
	if err != nil {
		return err
	}
	fmt.Printf("{\"address\": %q}\n", n.address())
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(ioutil.Discard, bufio.NewReader(os.Stdin))
		close(over)
	}()
	for listed := 0; ; {
		select {
		case <-over:
			return nil
		case <-time.After(pause(listed)):
		}
		if live := n.live(); live != listed {
			fmt.Printf("{\"live\": %d}\n", live)
			listed = live
		}
	}
}
