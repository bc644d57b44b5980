//! SWIM as its paper has it, in rounds and messages, without a network beneath: what ours is measured against. And rumors in
//! lock step.

use std::collections::BTreeMap;

use bruit_core::rng::Rng;

use super::table::Cost;

/// SWIM §3.1: rounds begin at once everywhere, each pings one other by lot. After how many is member 0 pinged?
pub fn rounds_until_pinged(seed: u64, n: usize) -> f64 {
    let mut rng = Rng::new(seed);
    for round in 1.. {
        // The others' choice: any but themselves.
        if (1..n).any(|_| rng.index(n - 1) == 0) {
            return f64::from(round);
        }
    }
    unreachable!("the rounds do not end")
}

/// Who acts when: each member once a period, at a moment of its own.
fn moments(rng: &mut Rng, n: usize) -> Vec<(u64, usize)> {
    let mut moments: Vec<(u64, usize)> = (0..n).map(|i| (rng.below(1_000_000), i)).collect();
    moments.sort_unstable();
    moments
}

/// SWIM §4.1: news rides on pings and their answers. Calls `heard` with each one's time, in periods.
fn infect(seed: u64, n: usize, mut heard: impl FnMut(f64) -> bool) {
    let mut rng = Rng::new(seed);
    let moments = moments(&mut rng, n);
    let mut knows = vec![false; n];
    knows[rng.index(n)] = true;
    let begin = rng.below(1_000_000) as f64 / 1e6;
    for period in 0.. {
        for &(moment, i) in &moments {
            let at = f64::from(period) + moment as f64 / 1e6 - begin;
            let other = (i + 1 + rng.index(n - 1)) % n;
            if at >= 0.0 && knows[i] != knows[other] {
                (knows[i], knows[other]) = (true, true);
                if !heard(at) {
                    return;
                }
            }
        }
        if knows.iter().all(|&k| k) {
            return;
        }
    }
}

/// How many know after so many periods.
pub fn infected(seed: u64, n: usize, periods: f64) -> f64 {
    let mut count = 1;
    infect(seed, n, |at| {
        count += usize::from(at <= periods);
        at <= periods
    });
    count as f64
}

/// When half of the others know, in periods.
pub fn median_infection(seed: u64, n: usize) -> f64 {
    let mut times = Vec::new();
    infect(seed, n, |at| {
        times.push(at);
        true
    });
    times[n / 2 - 1]
}

/// SWIM §5.3's three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// §3: what is detected is multicast, once.
    Basic,
    /// §4.1: news rides on pings, answers and requests.
    Infection,
    /// §4.2: and who is silent is suspected first.
    Suspicion,
}

/// SWIM §5: a period lasts 2 s, one other is asked to ping, a message carries at most six updates.
const PERIOD: u64 = 2;
const UPDATES: usize = 6;
/// Bytes of a message without updates, and of one update: §5 has 15 B, and 135 B with six.
const MESSAGE: usize = 15 + 28;
const UPDATE: usize = 20;

pub struct Joins {
    /// Members that one lists, itself included: the longest list of all.
    pub size: f64,
    pub cost: Cost,
}

/// `n` processes join through the first one, one each `pace` seconds. The group after `end` seconds.
pub fn joins(seed: u64, variant: Variant, n: usize, pace: u64, end: u64, loss: f64) -> Joins {
    let mut group = Group { rng: Rng::new(seed), variant, loss, processes: Vec::new(), now: 0, packets: 0, bytes: 0 };
    let moments = moments(&mut group.rng, n);
    for period in 0..=end / PERIOD {
        group.now = period;
        while group.processes.len() < n && group.processes.len() as u64 * pace <= period * PERIOD {
            group.join();
        }
        for &(_, i) in &moments {
            if group.processes.get(i).is_some_and(|p| p.up) {
                group.act(i);
            }
        }
    }
    let sizes = group.processes.iter().filter(|p| p.up).map(Process::size);
    let size = sizes.max().unwrap_or(0) as f64;
    let share = 1.0 / (end as f64 * n as f64);
    Joins { size, cost: Cost { packets: group.packets as f64 * share, bytes: group.bytes as f64 * share } }
}

struct Group {
    rng: Rng,
    variant: Variant,
    loss: f64,
    processes: Vec<Process>,
    /// The period.
    now: u64,
    packets: u64,
    bytes: u64,
}

#[derive(Default)]
struct Process {
    up: bool,
    incarnation: u64,
    /// What it holds of the others.
    list: BTreeMap<usize, Standing>,
    news: Vec<News>,
    robin: Vec<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Alive(u64),
    Suspect {
        incarnation: u64,
        until: u64,
    },
    /// §4.2: final.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Alive(u64),
    Suspect(u64),
    Confirm,
}

#[derive(Clone, Copy, Debug)]
struct News {
    about: usize,
    say: Say,
    told: usize,
}

impl Process {
    fn size(&self) -> usize {
        1 + self.list.values().filter(|s| **s != Standing::Failed).count()
    }

    /// §5: 3⌈ln(N + 1)⌉ is both how often news is told and how many periods a suspicion lasts.
    fn limit(&self) -> usize {
        3 * ((self.size() + 1) as f64).ln().ceil() as usize
    }

    fn spread(&mut self, about: usize, say: Say) {
        self.news.retain(|news| news.about != about);
        self.news.push(News { about, say, told: 0 });
    }
}

impl Group {
    /// Through the first one, which is asked once: the paper does not say that a question is repeated.
    fn join(&mut self) {
        let me = self.processes.len();
        let mut joiner = Process::default();
        let Some(first) = self.processes.first() else {
            return self.processes.push(Process { up: true, ..joiner });
        };
        joiner.list = first.list.clone();
        joiner.list.retain(|_, s| *s != Standing::Failed);
        joiner.list.insert(0, Standing::Alive(first.incarnation));
        let asked = self.arrives(0);
        joiner.up = asked && self.arrives(UPDATES);
        self.processes.push(joiner);
        if asked {
            self.processes[0].list.insert(me, Standing::Alive(0));
            self.announce(0, me, Say::Alive(0));
        }
    }

    /// News of `by`'s own: to all, once, or by infection.
    fn announce(&mut self, by: usize, about: usize, say: Say) {
        if self.variant != Variant::Basic {
            return self.processes[by].spread(about, say);
        }
        for to in 0..self.processes.len() {
            if to != by && self.arrives(0) {
                self.take(to, about, say);
            }
        }
    }

    /// One period of one process.
    fn act(&mut self, i: usize) {
        let now = self.now;
        let over = |s: &Standing| matches!(s, Standing::Suspect { until, .. } if *until <= now);
        let over: Vec<usize> = self.processes[i].list.iter().filter(|(_, s)| over(s)).map(|(&j, _)| j).collect();
        for j in over {
            self.processes[i].list.insert(j, Standing::Failed);
            self.announce(i, j, Say::Confirm);
        }
        let Some(target) = self.next(i) else { return };
        if self.message(i, target) && self.message(target, i) {
            return;
        }
        let others: Vec<usize> = self.processes[i]
            .list
            .iter()
            .filter(|(j, s)| **j != target && **s != Standing::Failed)
            .map(|(&j, _)| j)
            .collect();
        if !others.is_empty() {
            let relay = others[self.rng.index(others.len())];
            let there = self.message(i, relay) && self.message(relay, target);
            if there && self.message(target, relay) && self.message(relay, i) {
                return;
            }
        }
        match (self.variant, self.processes[i].list.get(&target)) {
            (Variant::Suspicion, Some(&Standing::Alive(incarnation))) => {
                self.take(i, target, Say::Suspect(incarnation))
            }
            (Variant::Suspicion, _) => {}
            (Variant::Basic | Variant::Infection, _) => {
                self.processes[i].list.insert(target, Standing::Failed);
                self.announce(i, target, Say::Confirm);
            }
        }
    }

    /// §4.3: a walk over a shuffled list.
    fn next(&mut self, i: usize) -> Option<usize> {
        let p = &mut self.processes[i];
        for refill in [true, false] {
            while let Some(j) = p.robin.pop() {
                if p.list.get(&j).is_some_and(|s| *s != Standing::Failed) {
                    return Some(j);
                }
            }
            if refill {
                p.robin.extend(p.list.keys());
                self.rng.shuffle(&mut p.robin);
            }
        }
        None
    }

    fn arrives(&mut self, updates: usize) -> bool {
        self.packets += 1;
        self.bytes += (MESSAGE + UPDATE * updates) as u64;
        (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 >= self.loss
    }

    /// One message with what rides on it. Whether it came.
    fn message(&mut self, from: usize, to: usize) -> bool {
        let p = &mut self.processes[from];
        let limit = p.limit();
        // §4.1: what was told least goes first.
        p.news.sort_by_key(|news| news.told);
        let riding: Vec<News> = p.news.iter().take(UPDATES).copied().collect();
        p.news.iter_mut().take(UPDATES).for_each(|news| news.told += 1);
        p.news.retain(|news| news.told < limit);
        if !self.arrives(riding.len()) || !self.processes[to].up {
            return false;
        }
        if self.processes[to].list.get(&from) == Some(&Standing::Failed) {
            return false;
        }
        for News { about, say, .. } in riding {
            self.take(to, about, say);
        }
        true
    }

    /// §4.2's order.
    fn take(&mut self, i: usize, about: usize, say: Say) {
        let now = self.now;
        let p = &mut self.processes[i];
        if i == about {
            match say {
                Say::Suspect(incarnation) if incarnation >= p.incarnation => {
                    p.incarnation = incarnation + 1;
                    let alive = Say::Alive(p.incarnation);
                    p.spread(i, alive);
                }
                // It was told that it has failed: it is no member any more.
                Say::Confirm => p.up = false,
                _ => {}
            }
            return;
        }
        let until = now + p.limit() as u64;
        let (known, new) = (p.list.get(&about).copied(), say);
        let becomes = match (known, new) {
            (Some(Standing::Failed), _) => None,
            (None, Say::Alive(i)) => Some(Standing::Alive(i)),
            (None, _) => None,
            (_, Say::Confirm) => Some(Standing::Failed),
            (Some(Standing::Alive(j)), Say::Suspect(i)) if i >= j => Some(Standing::Suspect { incarnation: i, until }),
            (Some(Standing::Suspect { incarnation: j, .. }), Say::Suspect(i)) if i > j => {
                Some(Standing::Suspect { incarnation: i, until })
            }
            (Some(Standing::Alive(j) | Standing::Suspect { incarnation: j, .. }), Say::Alive(i)) if i > j => {
                Some(Standing::Alive(i))
            }
            _ => None,
        };
        if let Some(standing) = becomes {
            p.list.insert(about, standing);
            if self.variant != Variant::Basic {
                p.spread(about, say);
            }
        }
    }
}

/// A rumor, in lock step: in each round all who have it push it to `fanout` others by lot. After how many rounds does the last
/// have it?
pub fn rounds_until_all_know(seed: u64, n: usize, fanout: usize) -> f64 {
    let mut rng = Rng::new(seed);
    // Who has it stands before who has it not.
    let (mut who, mut place): (Vec<usize>, Vec<usize>) = ((0..n).collect(), (0..n).collect());
    let mut know = 1;
    for round in 1.. {
        let tellers = know;
        for at in 0..tellers {
            let teller = who[at];
            let mut told = Vec::with_capacity(fanout);
            while told.len() < fanout {
                let other = rng.index(n);
                if other != teller && !told.contains(&other) {
                    told.push(other);
                }
            }
            for other in told {
                if place[other] < know {
                    continue;
                }
                let (at, first) = (place[other], who[know]);
                who.swap(at, know);
                (place[other], place[first]) = (know, at);
                know += 1;
            }
        }
        if know == n {
            return f64::from(round);
        }
    }
    unreachable!("the rounds do not end")
}
