package main

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Messages as those of the Rust peers: their number, who said it, and noise that does not compress.
const (
	header    = 16
	noiseSize = 4 << 20
	step      = 65521
)

var noises = func() []byte {
	letters := "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"
	chance, noise := uint64(0x9e3779b97f4a7c15), make([]byte, noiseSize)
	for i := range noise {
		chance ^= chance << 13
		chance ^= chance >> 7
		chance ^= chance << 17
		noise[i] = letters[chance%64]
	}
	return noise
}()

func message(origin, number, size int) []byte {
	return append([]byte(fmt.Sprintf("%08x%08x", number, origin)), noise(number, size)...)
}

func noise(number, size int) []byte {
	from := (number * step) % (noiseSize - step)
	return noises[from : from+size-header]
}

// What one node's application has heard.
type heard struct {
	node    int
	mutex   sync.Mutex
	numbers []uint64
	all     *tally
}

// Whether it is the first time, and somebody else's.
func (h *heard) take(data []byte) bool {
	if len(data) < header {
		return false
	}
	number, err := strconv.ParseUint(string(data[:8]), 16, 64)
	origin, err2 := strconv.ParseUint(string(data[8:header]), 16, 64)
	if err != nil || err2 != nil || int(origin) == h.node || !bytes.Equal(data[header:], noise(int(number), len(data))) {
		return false
	}
	word, bit := int(number/64), uint64(1)<<(number%64)
	h.mutex.Lock()
	for len(h.numbers) <= word {
		h.numbers = append(h.numbers, 0)
	}
	isNew := h.numbers[word]&bit == 0
	h.numbers[word] |= bit
	h.mutex.Unlock()
	if isNew {
		h.all.add()
	} else {
		atomic.AddInt64(&h.all.again, 1)
	}
	return isNew
}

// Deliveries to all nodes of the process together.
type tally struct {
	now, again, awaited int64
	began               time.Time
	// Of the last delivery, in ns since it began.
	last    int64
	reached chan time.Time
}

const nobody = int64(1) << 62

func newTally() *tally {
	return &tally{awaited: nobody, began: time.Now(), reached: make(chan time.Time, 1)}
}

func (t *tally) add() {
	now := time.Now()
	atomic.StoreInt64(&t.last, int64(now.Sub(t.began)))
	if atomic.AddInt64(&t.now, 1) >= atomic.LoadInt64(&t.awaited) && atomic.SwapInt64(&t.awaited, nobody) != nobody {
		t.reached <- now
	}
}

func (t *tally) count() int { return int(atomic.LoadInt64(&t.now)) }

func (t *tally) lastAt() time.Time { return t.began.Add(time.Duration(atomic.LoadInt64(&t.last))) }

// When there were so many; false, where the count has stood still for so long, or the end is over.
func (t *tally) reach(wanted int, patience time.Duration, end time.Time) (time.Time, bool) {
	select {
	case <-t.reached:
	default:
	}
	seen := t.count()
	atomic.StoreInt64(&t.awaited, int64(wanted))
	for {
		if t.count() >= wanted {
			if atomic.SwapInt64(&t.awaited, nobody) != nobody {
				return t.lastAt(), true
			}
			return <-t.reached, true
		}
		wait := patience
		if left := time.Until(end); left < wait {
			wait = left
		}
		timer := time.NewTimer(wait)
		select {
		case at := <-t.reached:
			timer.Stop()
			return at, true
		case <-timer.C:
		}
		count := t.count()
		if count < wanted && (count == seen || !time.Now().Before(end)) {
			if atomic.SwapInt64(&t.awaited, nobody) == nobody {
				return <-t.reached, true
			}
			return time.Time{}, false
		}
		seen = count
	}
}
