//! The network between simulated nodes: what it does to a packet on its way.
//!
//! A [`Network`] holds for all pairs; a node may have losses of its own for what enters and what leaves it, and pairs or
//! sides can be cut. Datagrams are lost, doubled, reordered, damaged and swallowed for their size. A stream is TCP: it
//! loses nothing and keeps its order, but pays for each loss with a retransmission's wait, and breaks after too many.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use super::NodeIndex;
use crate::error::{Code, Error, Result};
use crate::outbox::Via;
use crate::rng::Rng;
use crate::time::{Duration, Instant, nanos};

/// One-way delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Delay {
    Fixed(Duration),
    Uniform {
        least: Duration,
        most: Duration,
    },
    /// Cut off at zero and at ten deviations.
    Normal {
        mean: Duration,
        deviation: Duration,
    },
    /// `least` and on top of it an exponential with that mean.
    Exponential {
        least: Duration,
        mean: Duration,
    },
    /// The logarithm is normal: `median`, and the factor that one deviation is.
    LogNormal {
        median: Duration,
        factor: f64,
    },
    /// Heavy tail: `least`, and P(more than x) = (least / x)^alpha; cut off at a minute.
    Pareto {
        least: Duration,
        alpha: f64,
    },
}

/// How datagrams get lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Each for itself, with that probability.
    Iid(f64),
    /// Gilbert (1960) and Elliott (1963): a pair's path is good or bad; before each datagram it may change.
    Bursts { begin: f64, end: f64, good: f64, bad: f64 },
}

/// What the network does to every packet. Probabilities are 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Network {
    pub delay: Delay,
    pub loss: Loss,
    /// A datagram arrives a second time, on its own way.
    pub duplicate: f64,
    /// A datagram is held up by up to ten more delays, so that later ones pass it.
    pub reorder: f64,
    /// One bit of a datagram flips.
    pub corrupt: f64,
    /// A datagram loses its end.
    pub truncate: f64,
    /// An old datagram, of anybody to anybody, arrives once more beside a new one.
    pub replay: f64,
    /// Larger datagrams vanish: IP and UDP headers and the envelope included.
    pub mtu: Option<usize>,
    /// What one node's line carries, in bytes a second; what waits beyond `queue` bytes is dropped.
    pub bandwidth: Option<u64>,
    pub queue: usize,
    pub udp_blocked: bool,
    pub tcp_blocked: bool,
}

impl Default for Network {
    /// A quick and faultless one.
    fn default() -> Network {
        Network {
            delay: Delay::Uniform { least: Duration::from_micros(200), most: Duration::from_millis(2) },
            loss: Loss::Iid(0.0),
            duplicate: 0.0,
            reorder: 0.0,
            corrupt: 0.0,
            truncate: 0.0,
            replay: 0.0,
            mtu: None,
            bandwidth: None,
            queue: 64 * 1024,
            udp_blocked: false,
            tcp_blocked: false,
        }
    }
}

impl Network {
    /// The default with that much loss, each datagram for itself.
    pub fn lossy(loss: f64) -> Network {
        Network { loss: Loss::Iid(loss), ..Network::default() }
    }

    /// `E_INVALID` for what is no probability, or no delay.
    pub fn validate(&self) -> Result<()> {
        let Network { duplicate, reorder, corrupt, truncate, replay, .. } = *self;
        self.loss.validate()?;
        self.delay.validate()?;
        for (name, p) in [
            ("duplicate", duplicate),
            ("reorder", reorder),
            ("corrupt", corrupt),
            ("truncate", truncate),
            ("replay", replay),
        ] {
            probability(name, p)?;
        }
        if self.bandwidth == Some(0) {
            return Err(Error::new(Code::Invalid, "bandwidth = 0: expected at least 1 byte a second, or none"));
        }
        Ok(())
    }
}

impl Loss {
    pub fn validate(&self) -> Result<()> {
        match *self {
            Loss::Iid(p) => probability("loss", p),
            Loss::Bursts { begin, end, good, bad } => {
                for (name, p) in [("loss.begin", begin), ("loss.end", end), ("loss.good", good), ("loss.bad", bad)] {
                    probability(name, p)?;
                }
                Ok(())
            }
        }
    }

    /// The share that is lost in the long run.
    pub fn mean(&self) -> f64 {
        match *self {
            Loss::Iid(p) => p,
            Loss::Bursts { begin, end, good, bad } => {
                let in_bad = if begin + end > 0.0 { begin / (begin + end) } else { 0.0 };
                good + (bad - good) * in_bad
            }
        }
    }
}

impl Delay {
    fn validate(&self) -> Result<()> {
        let fine = match *self {
            Delay::LogNormal { factor, .. } => factor.is_finite() && factor >= 1.0,
            Delay::Pareto { alpha, .. } => alpha.is_finite() && alpha > 0.0,
            Delay::Uniform { least, most } => least <= most,
            _ => true,
        };
        if fine {
            return Ok(());
        }
        let expected = "expected least <= most, a factor of at least 1, an alpha above 0";
        Err(Error::new(Code::Invalid, format!("delay {self:?}: {expected}")))
    }

    pub fn draw(&self, rng: &mut Rng) -> Duration {
        const MOST: f64 = 60e9;
        let ns = |d: Duration| nanos(d) as f64;
        let drawn = match *self {
            Delay::Fixed(d) => return d,
            Delay::Uniform { least, most } => {
                return least + Duration::from_nanos(rng.below(nanos(most.saturating_sub(least)) + 1));
            }
            Delay::Normal { mean, deviation } => ns(mean) + normal(rng).clamp(-10.0, 10.0) * ns(deviation),
            Delay::Exponential { least, mean } => ns(least) - libm::log(open_unit(rng)) * ns(mean),
            Delay::LogNormal { median, factor } => ns(median) * libm::exp(normal(rng) * libm::log(factor)),
            Delay::Pareto { least, alpha } => ns(least) * libm::pow(open_unit(rng), -1.0 / alpha),
        };
        Duration::from_nanos(drawn.clamp(0.0, MOST) as u64)
    }
}

fn probability(name: &str, p: f64) -> Result<()> {
    if (0.0..=1.0).contains(&p) {
        return Ok(());
    }
    Err(Error::new(Code::Invalid, format!("{name} = {p}: expected a probability from 0 to 1")))
}

/// True with probability `p`. Draws nothing where the answer is certain, so that a fault that is off changes no run.
pub fn chance(rng: &mut Rng, p: f64) -> bool {
    p > 0.0 && unit(rng) < p
}

/// Uniform in [0, 1), 53 bits.
pub fn unit(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Uniform in (0, 1].
fn open_unit(rng: &mut Rng) -> f64 {
    1.0 - unit(rng)
}

/// Box and Muller (1958).
pub fn normal(rng: &mut Rng) -> f64 {
    libm::sqrt(-2.0 * libm::log(open_unit(rng))) * libm::cos(core::f64::consts::TAU * unit(rng))
}

/// First wait of TCP for an answer to its SYN, and to data on a link that is up (RFC 6298 §2, Linux). Each further one doubles.
const SYN_TIMEOUT: Duration = Duration::from_secs(1);
const DATA_TIMEOUT: Duration = Duration::from_millis(200);
/// After so many retransmissions we call the link broken: beyond every `link_timeout`.
const RETRANSMISSIONS: u32 = 6;
/// A link that was used within this is still up.
const LINK_IDLE: Duration = Duration::from_secs(60);

/// What becomes of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// When it arrives, if it does; and a second time.
    pub arrivals: [Option<Instant>; 2],
    /// Damaged on the way.
    pub damage: Option<Damage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Damage {
    Flip { bit: usize },
    Cut { len: usize },
}

/// The network's state.
pub(super) struct Paths {
    pub network: Network,
    /// Losses of single nodes, on top: what enters, what leaves.
    ingress: BTreeMap<NodeIndex, Loss>,
    egress: BTreeMap<NodeIndex, Loss>,
    /// One-way: from, to.
    cuts: BTreeSet<(NodeIndex, NodeIndex)>,
    /// Sides of partitions: per partition, 0 for neither, 1, or 2.
    parts: Vec<Vec<u8>>,
    /// Paths that are in their bad state, and nodes' own.
    bad: BTreeSet<(NodeIndex, NodeIndex)>,
    /// When each node's line is free.
    free: BTreeMap<NodeIndex, Instant>,
    /// Links, by the lower and the higher of their ends.
    links: BTreeMap<(NodeIndex, NodeIndex), Link>,
}

/// A connection that carries both ways.
#[derive(Clone, Copy, Debug)]
struct Link {
    used: Instant,
    /// When the last packet to its lower and its higher end arrives.
    last: [Instant; 2],
}

/// Stands for the world beyond in the states of nodes' own losses.
const WORLD: NodeIndex = NodeIndex::MAX;

impl Paths {
    pub fn new() -> Paths {
        Paths {
            network: Network::default(),
            ingress: BTreeMap::new(),
            egress: BTreeMap::new(),
            cuts: BTreeSet::new(),
            parts: Vec::new(),
            bad: BTreeSet::new(),
            free: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }

    pub fn ingress(&mut self, i: NodeIndex, loss: Option<Loss>) {
        set(&mut self.ingress, i, loss);
    }

    pub fn egress(&mut self, i: NodeIndex, loss: Option<Loss>) {
        set(&mut self.egress, i, loss);
    }

    pub fn cut(&mut self, from: NodeIndex, to: NodeIndex) {
        self.cuts.insert((from, to));
    }

    pub fn part(&mut self, left: &[NodeIndex], right: &[NodeIndex]) {
        let size = left.iter().chain(right).max().map_or(0, |m| m + 1);
        let mut sides = alloc::vec![0; size];
        left.iter().for_each(|&i| sides[i] = 1);
        right.iter().for_each(|&i| sides[i] = 2);
        self.parts.push(sides);
    }

    /// Cuts and nodes' own losses end. The network stays as it is.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.parts.clear();
        self.ingress.clear();
        self.egress.clear();
    }

    pub fn is_cut(&self, from: NodeIndex, to: NodeIndex) -> bool {
        let side = |sides: &Vec<u8>, i: NodeIndex| sides.get(i).copied().unwrap_or(0);
        (!self.cuts.is_empty() && self.cuts.contains(&(from, to)))
            || self.parts.iter().any(|s| side(s, from) != 0 && side(s, to) != 0 && side(s, from) != side(s, to))
    }

    /// Who has a link with it.
    pub fn linked_with(&self, i: NodeIndex) -> Vec<NodeIndex> {
        let other = |&(a, b): &(NodeIndex, NodeIndex)| if a == i { Some(b) } else { (b == i).then_some(a) };
        self.links.keys().filter_map(other).filter(|&j| j != WORLD).collect()
    }

    /// Links of a node that is gone are gone.
    pub fn forget(&mut self, i: NodeIndex) {
        self.links.retain(|&(a, b), _| a != i && b != i);
    }

    /// A packet of `len` bytes, headers included, leaves for somebody; `to` is `None` where nobody is.
    pub fn send(
        &mut self,
        rng: &mut Rng,
        now: Instant,
        from: NodeIndex,
        to: Option<NodeIndex>,
        via: Via,
        len: usize,
    ) -> Fate {
        let blocked = match via {
            Via::Datagram => self.network.udp_blocked || self.network.mtu.is_some_and(|mtu| len > mtu),
            Via::Stream => self.network.tcp_blocked,
        };
        if blocked || to.is_some_and(|to| self.is_cut(from, to)) {
            return Fate::default();
        }
        let Some(leaves) = self.onto_the_line(now, from, len) else { return Fate::default() };
        match via {
            Via::Datagram => self.datagram(rng, leaves, from, to, len),
            Via::Stream => self.stream(rng, leaves, from, to),
        }
    }

    fn datagram(&mut self, rng: &mut Rng, leaves: Instant, from: NodeIndex, to: Option<NodeIndex>, len: usize) -> Fate {
        if self.is_lost(rng, from, to) {
            return Fate::default();
        }
        let net = &self.network;
        let mut first = leaves + net.delay.draw(rng);
        if chance(rng, net.reorder) {
            first = first + net.delay.draw(rng) * (1 + rng.below(10) as u32);
        }
        let second = chance(rng, net.duplicate).then(|| leaves + net.delay.draw(rng));
        let damage = if chance(rng, net.corrupt) {
            Some(Damage::Flip { bit: rng.index(len * 8) })
        } else if chance(rng, net.truncate) {
            Some(Damage::Cut { len: rng.index(len) })
        } else {
            None
        };
        Fate { arrivals: [Some(first), second], damage }
    }

    /// TCP: a handshake where there is no link, then data in order; each loss costs a wait that doubles.
    fn stream(&mut self, rng: &mut Rng, leaves: Instant, from: NodeIndex, to: Option<NodeIndex>) -> Fate {
        let back_is_cut = to.is_some_and(|to| self.is_cut(to, from));
        if back_is_cut {
            return Fate::default();
        }
        let other = to.unwrap_or(WORLD);
        let (key, way) = ((from.min(other), from.max(other)), usize::from(other > from));
        let link = self.links.get(&key).copied().filter(|link| leaves.since(link.used) < LINK_IDLE);
        let mut arrives = leaves + self.network.delay.draw(rng);
        if link.is_none() {
            // SYN and the answer to it.
            arrives = arrives + self.network.delay.draw(rng) + self.network.delay.draw(rng);
            let Some(waited) = self.retransmitted(rng, SYN_TIMEOUT, from, to, true) else { return Fate::default() };
            arrives = arrives + waited;
        }
        let Some(waited) = self.retransmitted(rng, DATA_TIMEOUT, from, to, false) else {
            self.links.remove(&key);
            return Fate::default();
        };
        let mut link = link.unwrap_or(Link { used: leaves, last: [Instant::ZERO; 2] });
        arrives = (arrives + waited).max(link.last[way]);
        (link.used, link.last[way]) = (leaves.max(link.used), arrives);
        if to.is_some() {
            self.links.insert(key, link);
        }
        Fate { arrivals: [Some(arrives), None], damage: None }
    }

    /// How long losses delay one trip, or there and back; `None`: for longer than anybody waits.
    fn retransmitted(
        &mut self,
        rng: &mut Rng,
        first: Duration,
        from: NodeIndex,
        to: Option<NodeIndex>,
        back: bool,
    ) -> Option<Duration> {
        let (mut tries, mut waited) = (0, Duration::ZERO);
        while self.is_lost(rng, from, to) || (back && to.is_some_and(|to| self.is_lost(rng, to, Some(from)))) {
            if tries == RETRANSMISSIONS {
                return None;
            }
            waited += first * (1 << tries);
            tries += 1;
        }
        Some(waited)
    }

    fn is_lost(&mut self, rng: &mut Rng, from: NodeIndex, to: Option<NodeIndex>) -> bool {
        let to = to.unwrap_or(WORLD);
        let mut lost = draw_loss(rng, &mut self.bad, (from, to), self.network.loss);
        if let Some(&loss) = self.egress.get(&from) {
            lost |= draw_loss(rng, &mut self.bad, (from, WORLD), loss);
        }
        if let Some(&loss) = self.ingress.get(&to) {
            lost |= draw_loss(rng, &mut self.bad, (WORLD, to), loss);
        }
        lost
    }

    /// When the packet has left the sender's line; `None`: the queue before it is full.
    fn onto_the_line(&mut self, now: Instant, from: NodeIndex, len: usize) -> Option<Instant> {
        let Some(rate) = self.network.bandwidth else { return Some(now) };
        let free = self.free.get(&from).copied().unwrap_or(now).max(now);
        let waiting = u128::from(nanos(free.since(now))) * u128::from(rate) / 1_000_000_000;
        if waiting + len as u128 > self.network.queue as u128 {
            return None;
        }
        let left = free + Duration::from_nanos((len as u128 * 1_000_000_000 / u128::from(rate)) as u64);
        self.free.insert(from, left);
        Some(left)
    }
}

fn draw_loss(
    rng: &mut Rng,
    bad: &mut BTreeSet<(NodeIndex, NodeIndex)>,
    path: (NodeIndex, NodeIndex),
    loss: Loss,
) -> bool {
    match loss {
        Loss::Iid(p) => chance(rng, p),
        Loss::Bursts { begin, end, good, bad: in_bad } => {
            let was_bad = bad.contains(&path);
            if chance(rng, if was_bad { end } else { begin }) {
                if was_bad {
                    bad.remove(&path)
                } else {
                    bad.insert(path)
                };
            }
            chance(rng, if bad.contains(&path) { in_bad } else { good })
        }
    }
}

fn set<V>(map: &mut BTreeMap<NodeIndex, V>, i: NodeIndex, value: Option<V>) {
    match value {
        Some(value) => drop(map.insert(i, value)),
        None => drop(map.remove(&i)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn paths(network: Network) -> Paths {
        network.validate().unwrap();
        Paths { network, ..Paths::new() }
    }

    /// What becomes of `n` datagrams of 100 bytes, one a millisecond.
    fn sent(paths: &mut Paths, n: u64) -> Vec<Fate> {
        let mut rng = Rng::new(1);
        let at = |i| Instant::ZERO + MS * i as u32;
        (0..n).map(|i| paths.send(&mut rng, at(i), 0, Some(1), Via::Datagram, 100)).collect()
    }

    fn lost(fates: &[Fate]) -> f64 {
        fates.iter().filter(|f| f.arrivals[0].is_none()).count() as f64 / fates.len() as f64
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        for p in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            for network in [
                Network::lossy(p),
                Network { duplicate: p, ..Network::default() },
                Network { reorder: p, ..Network::default() },
                Network { corrupt: p, ..Network::default() },
                Network { truncate: p, ..Network::default() },
                Network { replay: p, ..Network::default() },
                Network { loss: Loss::Bursts { begin: 0.1, end: 0.1, good: 0.0, bad: p }, ..Network::default() },
            ] {
                let error = network.validate().unwrap_err();
                assert_eq!(error.code, Code::Invalid);
                assert!(error.text.contains("from 0 to 1"), "{error:?}");
            }
        }
        assert!(Network::lossy(1.0).validate().is_ok());
    }

    #[test]
    fn losses_have_the_frequency_that_was_asked_for() {
        for loss in [0.0, 0.1, 0.8, 1.0] {
            let share = lost(&sent(&mut paths(Network::lossy(loss)), 20_000));
            assert!((share - loss).abs() < 0.01, "{share} for {loss}");
        }
    }

    /// A run of losses in the bad state is 1 / end long on average.
    #[test]
    fn bursts_are_as_long_and_as_frequent_as_the_chain_says() {
        let loss = Loss::Bursts { begin: 0.01, end: 0.1, good: 0.0, bad: 1.0 };
        let fates = sent(&mut paths(Network { loss, ..Network::default() }), 100_000);
        let runs = fates.windows(2).filter(|w| w[0].arrivals[0].is_some() && w[1].arrivals[0].is_none()).count();
        let mean = lost(&fates) * 100_000.0 / runs as f64;
        assert!((lost(&fates) - loss.mean()).abs() < 0.01, "{} for {}", lost(&fates), loss.mean());
        assert!((mean - 10.0).abs() < 1.0, "{mean}");
    }

    #[test]
    fn delays_have_their_means_and_their_tails() {
        let mut rng = Rng::new(2);
        let mean = |delay: Delay, rng: &mut Rng| {
            let drawn = (0..20_000).map(|_| nanos(delay.draw(rng)) as f64 / 1e6);
            drawn.sum::<f64>() / 20_000.0
        };
        let cases = [
            (Delay::Fixed(3 * MS), 3.0),
            (Delay::Uniform { least: MS, most: 3 * MS }, 2.0),
            (Delay::Normal { mean: 50 * MS, deviation: 5 * MS }, 50.0),
            (Delay::Exponential { least: MS, mean: 4 * MS }, 5.0),
            // exp(σ² / 2) above the median.
            (Delay::LogNormal { median: 10 * MS, factor: 2.0 }, 12.7),
            // α / (α − 1) times the least.
            (Delay::Pareto { least: 2 * MS, alpha: 3.0 }, 3.0),
        ];
        for (delay, expected) in cases {
            let got = mean(delay, &mut rng);
            assert!((got / expected - 1.0).abs() < 0.05, "{delay:?}: {got}");
        }
    }

    #[test]
    fn what_is_held_up_is_passed_by_what_came_later() {
        let calm = Network { delay: Delay::Fixed(2 * MS), ..Network::default() };
        let order = |network| {
            let fates = sent(&mut paths(network), 1_000);
            fates.windows(2).filter(|w| w[0].arrivals[0] > w[1].arrivals[0]).count()
        };
        assert_eq!(order(calm), 0);
        assert!(order(Network { reorder: 0.2, ..calm }) > 100);
    }

    #[test]
    fn a_narrow_line_delays_and_then_drops() {
        let mut paths = paths(Network { bandwidth: Some(10_000), queue: 1_000, ..Network::lossy(0.0) });
        let mut rng = Rng::new(3);
        let fates: Vec<Fate> =
            (0..20).map(|_| paths.send(&mut rng, Instant::ZERO, 0, Some(1), Via::Datagram, 100)).collect();
        assert_eq!(fates.iter().filter(|f| f.arrivals[0].is_some()).count(), 10);
        assert!(fates[9].arrivals[0].unwrap() >= Instant::ZERO + 100 * MS, "ten packets of 10 ms each");
        let later = paths.send(&mut rng, Instant::ZERO + 50 * MS, 0, Some(1), Via::Datagram, 100);
        assert!(later.arrivals[0].is_some(), "there is room again");
    }

    #[test]
    fn large_datagrams_vanish_in_a_black_hole_and_small_ones_and_streams_pass() {
        let mut paths = paths(Network { mtu: Some(576), ..Network::default() });
        let mut rng = Rng::new(4);
        let mut passes = |via, len| paths.send(&mut rng, Instant::ZERO, 0, Some(1), via, len).arrivals[0].is_some();
        assert!(passes(Via::Datagram, 576) && passes(Via::Stream, 9_000));
        assert!(!passes(Via::Datagram, 577));
    }

    #[test]
    fn a_stream_keeps_its_order_and_pays_for_losses_by_waiting() {
        let mut rng = Rng::new(5);
        let mut paths = paths(Network::lossy(0.3));
        let mut last = Instant::ZERO;
        let (mut slow, mut broken) = (0, 0);
        for i in 0..2_000 {
            let now = Instant::ZERO + MS * 20 * i;
            match paths.send(&mut rng, now, 0, Some(1), Via::Stream, 100).arrivals[0] {
                Some(at) => {
                    assert!(at >= last);
                    last = at;
                    slow += u32::from(at.since(now) > 100 * MS);
                }
                None => (broken, last) = (broken + 1, Instant::ZERO),
            }
        }
        assert!(slow > 500, "{slow}");
        assert!(broken < 20, "{broken}");
        paths.network = Network::lossy(0.95);
        let arrived =
            (0..100).filter(|_| paths.send(&mut rng, last, 2, Some(3), Via::Stream, 100).arrivals[0].is_some());
        assert!(arrived.count() < 60, "a link that loses nearly everything breaks");
    }

    #[test]
    fn cuts_are_one_way_and_partitions_both() {
        let mut paths = paths(Network::default());
        paths.cut(0, 1);
        paths.part(&[2, 3], &[4]);
        assert!(paths.is_cut(0, 1) && !paths.is_cut(1, 0));
        assert!(paths.is_cut(2, 4) && paths.is_cut(4, 3) && !paths.is_cut(2, 3) && !paths.is_cut(0, 4));
        let mut rng = Rng::new(6);
        let mut passes =
            |from, to, via| paths.send(&mut rng, Instant::ZERO, from, Some(to), via, 50).arrivals[0].is_some();
        assert!(!passes(0, 1, Via::Datagram) && passes(1, 0, Via::Datagram));
        assert!(!passes(1, 0, Via::Stream), "TCP needs the way back");
        paths.heal();
        assert!(!paths.is_cut(0, 1) && !paths.is_cut(2, 4));
    }

    #[test]
    fn a_nodes_own_losses_hold_for_it_alone() {
        let mut paths = paths(Network::default());
        paths.ingress(1, Some(Loss::Iid(1.0)));
        paths.egress(2, Some(Loss::Iid(1.0)));
        let mut rng = Rng::new(7);
        let mut passes =
            |from, to| paths.send(&mut rng, Instant::ZERO, from, Some(to), Via::Datagram, 50).arrivals[0].is_some();
        assert!(!passes(0, 1) && passes(1, 0) && passes(0, 2) && !passes(2, 0));
    }
}
