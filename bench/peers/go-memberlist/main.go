// hashicorp/memberlist: a delegate hears messages, and offers what it has to say whenever a packet leaves. A broadcast is heard and offered
// again by every node that had not heard it, as serf does. The works are those of bench/peers/work, with the same words and figures.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/ioutil"
	"log"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/memberlist"
)

// Before a message: to all, or to this node only.
const (
	toAll = '*'
	toOne = '.'
)

type options struct {
	nodes, bytes, trials, messages int
	seconds, settle                float64
	reliable                       bool
	seed, name, variant            string
}

func parse(words []string) (options, error) {
	o := options{nodes: 10, bytes: 256, trials: 1, messages: 100000, seconds: 3, settle: 1, reliable: true, name: "n0"}
	for _, word := range words {
		pair := strings.SplitN(word, "=", 2)
		if len(pair) != 2 {
			return o, fmt.Errorf("%q is not of the form name=value", word)
		}
		var err error
		switch value := pair[1]; pair[0] {
		case "nodes":
			o.nodes, err = strconv.Atoi(value)
		case "bytes":
			o.bytes, err = strconv.Atoi(value)
		case "trials":
			o.trials, err = strconv.Atoi(value)
		case "messages":
			o.messages, err = strconv.Atoi(value)
		case "seconds":
			o.seconds, err = strconv.ParseFloat(value, 64)
		case "settle":
			o.settle, err = strconv.ParseFloat(value, 64)
		case "reliable":
			o.reliable, err = strconv.ParseBool(value)
		case "seed":
			o.seed = value
		case "name":
			o.name = value
		case "variant":
			o.variant = value
		default:
			err = fmt.Errorf("no option is called %q", pair[0])
		}
		if err != nil {
			return o, err
		}
	}
	return o, nil
}

// One node.
type node struct {
	list  *memberlist.Memberlist
	queue *memberlist.TransmitLimitedQueue
	heard *heard
}

// Begins to join, and does not wait for that.
func start(name, seed, variant string, nodes int, ears *heard) (*node, error) {
	config := memberlist.DefaultLANConfig()
	switch variant {
	case "local":
		config = memberlist.DefaultLocalConfig()
	case "sealed":
		config.SecretKey = bytes.Repeat([]byte{7}, 32)
	case "tuned":
		config.GossipInterval = 10 * time.Millisecond
		config.UDPBufferSize = 30000
		config.HandoffQueueDepth = 65536
		config.EnableCompression = false
	}
	config.Name, config.BindAddr, config.BindPort = name, "127.0.0.1", 0
	config.Logger = log.New(ioutil.Discard, "", 0)
	n := &node{heard: ears}
	n.queue = &memberlist.TransmitLimitedQueue{RetransmitMult: config.RetransmitMult, NumNodes: func() int { return nodes }}
	config.Delegate = n
	list, err := memberlist.Create(config)
	if err != nil {
		return nil, err
	}
	n.list = list
	if seed != "" {
		go func() {
			for _, err := list.Join([]string{seed}); err != nil; _, err = list.Join([]string{seed}) {
				time.Sleep(time.Second)
			}
		}()
	}
	return n, nil
}

func (n *node) address() string { return n.list.LocalNode().Address() }

func (n *node) live() int { return n.list.NumMembers() }

func (n *node) broadcast(data []byte) { n.queue.QueueBroadcast(rumor(marked(toAll, data))) }

func (n *node) send(to *node, data []byte, reliable bool) {
	// What is not sent is not heard, and counted there.
	if reliable {
		_ = n.list.SendReliable(to.list.LocalNode(), marked(toOne, data))
	} else {
		_ = n.list.SendBestEffort(to.list.LocalNode(), marked(toOne, data))
	}
}

func marked(mark byte, data []byte) []byte { return append([]byte{mark}, data...) }

func (n *node) NotifyMsg(message []byte) {
	if len(message) > 0 && n.heard.take(message[1:]) && message[0] == toAll {
		n.queue.QueueBroadcast(rumor(append([]byte(nil), message...)))
	}
}

func (n *node) GetBroadcasts(overhead, limit int) [][]byte {
	return n.queue.GetBroadcasts(overhead, limit)
}
func (n *node) NodeMeta(int) []byte           { return nil }
func (n *node) LocalState(bool) []byte        { return nil }
func (n *node) MergeRemoteState([]byte, bool) {}

type rumor []byte

func (r rumor) Invalidates(memberlist.Broadcast) bool { return false }
func (r rumor) Message() []byte                       { return r }
func (r rumor) Finished()                             {}
func (r rumor) UniqueBroadcast()                      {}

func about() map[string]interface{} {
	return map[string]interface{}{
		"name": "memberlist (Go)", "sealed": "", "joined": "each lists all",
		"broadcast": "TransmitLimitedQueue, and again at each receiver",
		"reliable":  "SendReliable: a TCP connection each", "best_effort": "SendBestEffort: UDP", "request": "", "detects": true,
		"variants": variants{{"default", "DefaultLANConfig"}, {"local", "DefaultLocalConfig"},
			{"tuned", "gossip every 10 ms, packets of 30,000 bytes, queue of 65,536, no compression"},
			{"sealed", "AES-256-GCM with one key of the cluster"}},
	}
}

// An object whose order is kept: the default comes first.
type variants [][2]string

func (v variants) MarshalJSON() ([]byte, error) {
	var pairs []string
	for _, pair := range v {
		pairs = append(pairs, fmt.Sprintf("%q: %q", pair[0], pair[1]))
	}
	return []byte("{" + strings.Join(pairs, ", ") + "}"), nil
}

func main() {
	var words []string
	work := ""
	if len(os.Args) > 1 {
		work, words = os.Args[1], os.Args[2:]
	}
	o, err := parse(words)
	var said interface{}
	if err == nil {
		works := map[string]func(options) (figures, error){
			"join": join, "broadcast": broadcast, "bulk": bulk, "direct": direct, "idle": idle, "detect": detect,
		}
		if work == "about" {
			said = about()
		} else if work == "member" {
			err = member(o)
		} else if run, ok := works[work]; ok {
			var found figures
			found, err = run(o)
			said = map[string]figures{"figures": found}
		} else {
			err = fmt.Errorf("no work is called %q", work)
		}
	}
	if err != nil {
		said = map[string]string{"error": err.Error()}
	}
	if said != nil {
		line, _ := json.Marshal(said)
		fmt.Println(string(line))
	}
	if err != nil {
		os.Exit(1)
	}
}
