//! The φ accrual failure detector: suspicion as a number that grows with silence.
//!
//! Hayashibara, Défago, Yared, Katayama 2004 (IS-RR-2004-010) §IV: the intervals between a member's heartbeats so far say how
//! likely it is that the next one is still to come after so much silence.
//!
//! ```text
//! φ(t) = −log10 P(interval > t)          φ = 1: one such silence in ten is a mistake, φ = 8: one in 10⁸, if the model holds
//! ```
//!
//! | model | P(interval > t) | φ reaches Φ after | |
//! |---|---|---|---|
//! | normal | ½ erfc((t − μ) / σ√2) | μ + z(Φ) · σ, z(8) = 5.61 | the paper's: regular heartbeats, straight from their sender |
//! | exponential | e^(−t/μ) | Φ · ln 10 · μ, 18.4 μ for Φ = 8 | Cassandra's: heartbeats passed on by whoever it falls to |
//!
//! Departures from the paper, because each of them went wrong somewhere: a sample is never longer than a cap (an hour of
//! outage would make the detector patient for a thousand samples), the deviation never smaller than a least one (regular
//! arrivals would make it 0), and until there are samples an interval is assumed (who was only told of would live for ever).
//!
//! 1 − P is 1 in a double where z is above 8.3, so what is computed is the logarithm of P. Nobody evaluates φ as time
//! passes: for a threshold [`Arrivals::deadline`] says when it will be crossed, if nothing comes.

pub mod heartbeats;

use alloc::vec::Vec;
use core::f64::consts::{FRAC_1_SQRT_2, LN_2, LN_10, LOG10_E};

use crate::config::{Config, PhiModel};
use crate::time::{Duration, Instant};

/// Until there are so many samples, the first interval stands for those that are missing. Chosen by feel: a deviation
/// of fewer says little.
const ASSUMED: u64 = 8;

/// What is taken for granted. Intervals are whole microseconds, at most 71 minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Premises {
    pub model: PhiModel,
    /// Samples that are kept. With none nothing is learned.
    pub window: usize,
    first: u32,
    min_deviation: u32,
    cap: u32,
}

impl Premises {
    /// A sample counts as at most `cap`. `first` is assumed until there are samples, with a quarter of it as deviation.
    pub fn new(model: PhiModel, window: usize, first: Duration, min_deviation: Duration, cap: Duration) -> Premises {
        // A deviation of zero would make every moment the last.
        let min_deviation = micros(min_deviation).max(1);
        Premises { model, window, first: micros(first), min_deviation, cap: micros(cap) }
    }

    pub fn of(config: &Config) -> Premises {
        let or = |time: Duration, periods| if time.is_zero() { config.probe_interval * periods } else { time };
        let (first, cap) = (or(config.phi_first_interval, 2), or(config.phi_max_interval, 10));
        Premises::new(config.phi_model, config.phi_window, first, config.phi_min_deviation, cap)
    }
}

/// A threshold of φ as a stretch of silence: so many means and so many deviations.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    means: f64,
    deviations: f64,
}

impl Limit {
    pub fn new(model: PhiModel, threshold: f64) -> Limit {
        match model {
            PhiModel::Normal => Limit { means: 1.0, deviations: quantile(threshold) },
            // Its deviation is its mean.
            PhiModel::Exponential => Limit { means: 0.0, deviations: threshold * LN_10 },
        }
    }
}

/// One member's heartbeats as they came.
#[derive(Clone, Debug)]
pub struct Arrivals {
    /// The latest intervals, in microseconds. A ring once the window is full.
    samples: Vec<u32>,
    oldest: u32,
    /// Over `samples`. Whole numbers: what is added is taken away again exactly, however many samples pass through.
    sum: u64,
    squares: u128,
    /// The last heartbeat.
    beat: Option<Instant>,
    /// The last sign of life.
    life: Instant,
    /// In microseconds.
    mean: f64,
    deviation: f64,
}

impl Arrivals {
    /// Somebody is there since `now`, or so we are told. Its silence begins.
    pub fn new(now: Instant, premises: &Premises) -> Arrivals {
        let mut arrivals = Arrivals {
            samples: Vec::new(),
            oldest: 0,
            sum: 0,
            squares: 0,
            beat: None,
            life: now,
            mean: 0.0,
            deviation: 0.0,
        };
        arrivals.measure(premises);
        arrivals
    }

    /// A heartbeat. `at` is never before the last one.
    #[inline]
    pub fn arrive(&mut self, at: Instant, premises: &Premises) {
        if let Some(before) = self.beat.replace(at) {
            self.learn(micros(at.since(before)).min(premises.cap), premises);
        }
        self.life = at;
    }

    /// A sign of life that is no heartbeat: its silence begins anew, and nothing is learned of intervals.
    pub fn live(&mut self, at: Instant) {
        self.life = at;
    }

    /// We were away for `lost` until `now`, and would have heard nothing: what they may have said then is not missed.
    pub fn give_back(&mut self, lost: Duration, now: Instant) {
        self.life = (self.life + lost).min(now);
        self.beat = self.beat.map(|at| (at + lost).min(now));
    }

    /// Heartbeats learned from.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// How suspicious its silence is.
    #[inline]
    pub fn phi(&self, now: Instant, model: PhiModel) -> f64 {
        // In plain numbers: to make a Duration of it would take as long as the rest.
        let silence = now.as_nanos().saturating_sub(self.life.as_nanos()) as f64 * 1e-3;
        match model {
            PhiModel::Normal => improbability((silence - self.mean) / self.deviation),
            PhiModel::Exponential => silence / (self.deviation * LN_10),
        }
    }

    /// When φ reaches the threshold of `limit`, if nothing comes.
    #[inline]
    pub fn deadline(&self, limit: Limit) -> Instant {
        let wait = self.mean * limit.means + self.deviation * limit.deviations;
        // A cast of what is too large, or below zero, is the nearest number that there is.
        Instant::from_nanos(self.life.as_nanos().saturating_add((wait * 1000.0) as u64))
    }

    fn learn(&mut self, interval: u32, premises: &Premises) {
        if self.samples.len() < premises.window {
            // A window of 1,000 is 4 KB: it grows by a quarter, not by its double.
            if self.samples.len() == self.samples.capacity() {
                let room = premises.window - self.samples.len();
                self.samples.reserve_exact((self.samples.len() / 4).max(8).min(room));
            }
            self.samples.push(interval);
        } else if let Some(oldest) = self.samples.get_mut(self.oldest as usize) {
            let gone = u64::from(core::mem::replace(oldest, interval));
            self.oldest = if self.oldest as usize + 1 == premises.window { 0 } else { self.oldest + 1 };
            self.sum -= gone;
            self.squares -= u128::from(gone * gone);
        } else {
            return;
        }
        let interval = u64::from(interval);
        self.sum += interval;
        self.squares += u128::from(interval * interval);
        self.measure(premises);
    }

    fn measure(&mut self, premises: &Premises) {
        let known = self.samples.len() as u64;
        let (missing, first) = (ASSUMED.saturating_sub(known), u64::from(premises.first));
        let n = known + missing;
        let sum = self.sum + missing * first;
        self.mean = sum as f64 / n as f64;
        let deviation = match premises.model {
            PhiModel::Normal => {
                let squares =
                    self.squares + u128::from(missing) * u128::from(first * first + (first / 4) * (first / 4));
                let scaled = u128::from(n) * squares - u128::from(sum) * u128::from(sum);
                libm::sqrt(scaled as f64) / n as f64
            }
            PhiModel::Exponential => self.mean,
        };
        self.deviation = deviation.max(f64::from(premises.min_deviation));
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

/// −log10 of the normal distribution's tail beyond `z`: 0.301 at 0, and as large as you like. Off by at most 1e-8.
fn improbability(z: f64) -> f64 {
    if z < -5.6 {
        // 5e-9 and less.
        return 0.0;
    }
    if z < 0.0 {
        let root = LOG10_2_ROOT - z * polynomial(&ROOT, -z);
        return (root * root) * (root * root);
    }
    // The tail is ½ erfc(x) = t · e^(fit(t) − x²) / 2. Only its logarithm is computed, so no step can underflow.
    let x = z * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let fit = (1.0 - t) * polynomial(&FIT, t);
    (x * x - fit - libm::log(t) + LN_2) * LOG10_E
}

/// Pairs of pairs: half of it is computed while the other half is.
fn polynomial(c: &[f64; 16], x: f64) -> f64 {
    let x2 = x * x;
    let x4 = x2 * x2;
    let pair = |i: usize| c[i] + c[i + 1] * x;
    let four = |i: usize| pair(i) + pair(i + 2) * x2;
    let eight = |i: usize| four(i) + four(i + 4) * x4;
    eight(0) + eight(8) * (x4 * x4)
}

/// (ln erfc(x) + x² − ln t) / (1 − t), where t = 1 / (1 + x/2) goes from 1 down to 0: its Chebyshev fit of 16 terms, made in 60
/// digits, is off by at most 6e-11. The factor makes it exact at 0, where the two sides of `z` meet.
const FIT: [f64; 16] = [
    -1.265_512_123_471_914_2,
    -0.265_512_130_112_578_5,
    0.109_488_486_591_314_63,
    0.192_797_865_137_835_64,
    0.107_368_947_633_236_51,
    -0.043_078_638_844_811_99,
    -0.076_138_000_926_105_02,
    -0.404_789_349_904_726_37,
    1.287_653_086_164_975_5,
    -3.500_127_617_978_665_6,
    7.649_565_743_455_481,
    -10.675_138_651_123_426,
    9.254_534_074_758_235,
    -4.906_811_243_795_197,
    1.471_539_586_199_287,
    -0.192_598_368_032_535_72,
];

/// Below 0 the fourth root of φ is what a polynomial can follow: φ falls by nine orders of magnitude there. (φ^¼ − its value at 0) / −z
/// for −z up to 5.6: likewise, off by at most 6e-9.
const ROOT: [f64; 16] = [
    -0.213_160_661_987_460_11,
    -0.006_974_628_709_983_525,
    0.001_918_487_020_242_171,
    0.000_778_935_984_059_947_7,
    2.9345474259344478e-05,
    0.000_160_213_279_941_899_64,
    -0.000_189_501_241_258_415_6,
    0.000_132_062_157_816_603_65,
    -6.630705060410198e-05,
    2.169462369378453e-05,
    -4.419647177823744e-06,
    5.239985311631608e-07,
    -2.6670098136871453e-08,
    -1.1227972092264117e-09,
    2.1598992889777058e-10,
    -8.188694725858093e-12,
];

/// The fourth root of log10 2.
const LOG10_2_ROOT: f64 = 0.740_717_223_331_057_4;

/// The `z` beyond which the normal distribution's tail has a φ of `threshold`, or a little more.
fn quantile(threshold: f64) -> f64 {
    // φ(z) > z² / (2 ln 10), so the upper end is beyond.
    let (mut low, mut high) = (-6.0, libm::sqrt(2.0 * LN_10 * threshold.max(0.0)) + 1.0);
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return high;
        }
        if improbability(middle) < threshold { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use core::f64::consts::LOG10_2;

    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    fn secs(s: f64) -> Duration {
        Duration::from_nanos((s * 1e9) as u64)
    }

    fn at(s: f64) -> Instant {
        Instant::ZERO + secs(s)
    }

    /// A window of 1,000; 2 s assumed, at least 100 ms of deviation, at most 10 s a sample.
    fn premises(model: PhiModel) -> Premises {
        Premises::new(model, 1000, secs(2.0), secs(0.1), secs(10.0))
    }

    /// One who was heard of at 0 and then each `interval`, until and with `end`.
    fn regular(premises: &Premises, interval: f64, end: f64) -> Arrivals {
        let mut arrivals = Arrivals::new(Instant::ZERO, premises);
        (0..=(end / interval) as u64).for_each(|i| arrivals.arrive(at(i as f64 * interval), premises));
        arrivals
    }

    /// In which second of silence the threshold of 8 is reached.
    fn patience(arrivals: &Arrivals, model: PhiModel) -> f64 {
        arrivals.deadline(Limit::new(model, 8.0)).since(arrivals.life).as_secs_f64()
    }

    const MODELS: [PhiModel; 2] = [PhiModel::Normal, PhiModel::Exponential];

    /// (z, −log10 of the tail beyond it), computed with 40 digits by mpmath 1.3.
    const TAIL: [(f64, f64); 16] = [
        (-8.0, 2.701_728_849_543_921e-16),
        (-5.0, 1.244_912_137_388_291_8e-7),
        (-3.0, 0.000_586_649_313_790_066_7),
        (-1.0, 0.075_026_012_957_818_02),
        (-0.1, 0.267_744_723_958_664_4),
        (0.0, LOG10_2),
        (0.1, 0.337_079_656_726_623_5),
        (1.0, 0.799_545_541_491_970_5),
        (2.0, 1.643_016_080_140_937),
        (3.0, 2.869_699_035_929_369),
        (5.0, 6.542_645_672_390_654_5),
        (8.3, 16.283_531_730_414_623),
        (10.0, 23.118_053_405_486_076),
        (20.0, 88.560_095_343_075_58),
        (37.0, 299.242_181_178_609_9),
        (38.6, 325.526_671_360_304),
    ];

    #[test]
    fn the_normal_tail_is_right_to_eight_digits_as_far_as_anybody_asks() {
        for (z, phi) in TAIL {
            assert!((improbability(z) - phi).abs() < 1e-8, "z = {z}: {} is not {phi}", improbability(z));
        }
        // Where libm's erfc still has digits.
        for i in -800..3_700 {
            let z = f64::from(i) / 100.0;
            let exact = -libm::log10(0.5 * libm::erfc(z * FRAC_1_SQRT_2));
            assert!((improbability(z) - exact).abs() < 1e-8, "z = {z}");
        }
        assert!((improbability(1e6) - 217_147_240_958.0).abs() < 0.1, "z² / (2 ln 10) + log10(z √2π)");
        assert_eq!(improbability(-1e6), 0.0);
    }

    /// 1 − P is 1 beyond z = 8.3, and its logarithm infinite: the paper's implementation would have ended there.
    #[test]
    fn phi_never_falls_while_silence_lasts_and_is_never_infinite() {
        let mut before = 0.0;
        for i in -40_000..200_000 {
            let phi = improbability(f64::from(i) / 4_000.0);
            assert!(phi >= before - 1e-13 && phi.is_finite(), "z = {}: {before}, {phi}", f64::from(i) / 4_000.0);
            before = phi;
        }
    }

    /// z(Φ) of tables: 1.2816 for 10 %, 2.3263 for 1 %, 3.0902 for 0.1 %; the others from mpmath as above.
    #[test]
    fn thresholds_become_quantiles() {
        for (threshold, z) in [
            (0.5, 0.478_273_532_376_162_67),
            (1.0, 1.281_551_565_544_600_5),
            (2.0, 2.326_347_874_040_841),
            (3.0, 3.090_232_306_167_813_5),
            (8.0, 5.612_001_244_174_789),
            (12.0, 7.034_483_825_301_131),
            (100.0, 21.273_453_560_965_324),
            (300.0, 37.047_096_299_361_2),
        ] {
            assert!((quantile(threshold) - z).abs() < 1e-7, "{threshold}: {} is not {z}", quantile(threshold));
        }
    }

    /// By hand: intervals of 1, 2, 3 and 6 s, twice over, have mean 3 and deviation √3.5; ½ erfc(√2/√2) is 0.0228.
    #[test]
    fn phi_is_that_of_the_mean_and_the_deviation() {
        let normal = premises(PhiModel::Normal);
        let mut arrivals = Arrivals::new(Instant::ZERO, &normal);
        let mut now = 0.0;
        arrivals.arrive(at(now), &normal);
        for interval in [1.0, 2.0, 3.0, 6.0].repeat(2) {
            now += interval;
            arrivals.arrive(at(now), &normal);
        }
        let deviation = 3.5_f64.sqrt();
        let phi = |silence: f64| arrivals.phi(at(now + silence), PhiModel::Normal);
        assert!((phi(3.0) - LOG10_2).abs() < 1e-5);
        assert!((phi(3.0 + 2.0 * deviation) - 1.643_016).abs() < 1e-5);
        assert!((patience(&arrivals, PhiModel::Normal) - (3.0 + 5.612_001_24 * deviation)).abs() < 1e-5);

        // e^(−t / 3): one in ten after 3 · ln 10 = 6.9078 s, one in 10⁸ after eight times as long.
        let exponential = premises(PhiModel::Exponential);
        let arrivals = regular(&exponential, 3.0, 90.0);
        assert!((arrivals.phi(at(96.907_755), PhiModel::Exponential) - 1.0).abs() < 1e-6);
        assert!((patience(&arrivals, PhiModel::Exponential) - 55.262_042).abs() < 1e-5);
    }

    /// Akka's and Hazelcast's least deviation of 100 ms: 1 + 5.612 · 0.1 s.
    #[test]
    fn regular_arrivals_leave_the_least_deviation() {
        let arrivals = regular(&premises(PhiModel::Normal), 1.0, 2_000.0);
        assert!((patience(&arrivals, PhiModel::Normal) - 1.561_200).abs() < 1e-5);
        let none = Premises::new(PhiModel::Normal, 100, secs(1.0), Duration::ZERO, secs(10.0));
        assert!(regular(&none, 1.0, 200.0).phi(at(201.1), PhiModel::Normal).is_finite());
        // A thousand at one moment, and the mean of a flood is no reason to call its end a death.
        for model in MODELS {
            let mut flood = Arrivals::new(Instant::ZERO, &premises(model));
            (0..2_000).for_each(|_| flood.arrive(at(5.0), &premises(model)));
            assert!(patience(&flood, model) >= 0.5);
        }
    }

    /// Cassandra's real time-out: 18.4 times the interval.
    #[test]
    fn the_exponential_model_waits_for_eighteen_intervals() {
        let arrivals = regular(&premises(PhiModel::Exponential), 1.0, 300.0);
        assert!((patience(&arrivals, PhiModel::Exponential) - 18.42).abs() < 0.01);
    }

    /// gossipmonger: known from a digest, φ was 0.43 for ever.
    #[test]
    fn who_was_only_told_of_becomes_suspicious_as_well() {
        for (model, expected) in [(PhiModel::Normal, 2.0 + 5.612 * 0.5), (PhiModel::Exponential, 36.84)] {
            let arrivals = Arrivals::new(at(7.0), &premises(model));
            assert!((patience(&arrivals, model) - expected).abs() < 0.01, "{}", patience(&arrivals, model));
        }
    }

    #[test]
    fn the_assumption_gives_way_to_samples_one_by_one() {
        let after = |samples: u64, model| patience(&regular(&premises(model), 0.5, 0.5 * samples as f64), model);
        let exponential: Vec<f64> = (0..=ASSUMED).map(|n| after(n, PhiModel::Exponential)).collect();
        assert!(exponential.windows(2).all(|w| w[1] < w[0]), "{exponential:?}");
        assert!((exponential[ASSUMED as usize] - 18.42 * 0.5).abs() < 0.01, "nothing of it is left");
        assert!((after(ASSUMED, PhiModel::Normal) - 1.061).abs() < 0.001);
    }

    /// gossipmonger: an hour moved the mean to 37 s, and the next death was seen after 681 s.
    #[test]
    fn an_hour_of_outage_is_forgiven_in_five_minutes() {
        for model in MODELS {
            let premises = premises(model);
            let mut arrivals = regular(&premises, 1.0, 2_000.0);
            let again = 2_000.0 + 3_600.0;
            (0..300).for_each(|i| arrivals.arrive(at(again + f64::from(i)), &premises));
            assert!(patience(&arrivals, model) < 30.0, "{model:?}: {}", patience(&arrivals, model));
            // And from the first minute on it is no worse than what the cap allows.
            let mut early = regular(&premises, 1.0, 30.0);
            (0..60).for_each(|i| early.arrive(at(again + f64::from(i)), &premises));
            assert!(patience(&early, model) < 30.0, "{model:?}: {}", patience(&early, model));
        }
    }

    #[test]
    fn the_window_forgets_what_was_before_it() {
        let premises = Premises::new(PhiModel::Normal, 10, secs(2.0), secs(0.001), secs(10.0));
        let mut arrivals = regular(&premises, 1.0, 100.0);
        (1..=10).for_each(|i| arrivals.arrive(at(100.0 + 0.2 * f64::from(i)), &premises));
        assert_eq!(arrivals.samples(), 10);
        assert!((arrivals.mean - 200_000.0).abs() < 1.0 && arrivals.deviation <= 1_000.0);
    }

    /// Running sums of doubles lose a little with each sample that leaves; whole numbers lose nothing.
    #[test]
    fn sums_do_not_drift() {
        let premises = Premises::new(PhiModel::Normal, 1000, secs(2.0), secs(0.1), Duration::MAX);
        let (mut arrivals, mut rng, mut now) = (Arrivals::new(Instant::ZERO, &premises), Rng::new(1), 0);
        for _ in 0..200_000 {
            now += 1 << rng.below(42);
            arrivals.arrive(Instant::from_nanos(now), &premises);
        }
        let squares: u128 = arrivals.samples.iter().map(|&s| u128::from(s) * u128::from(s)).sum();
        assert_eq!(arrivals.sum, arrivals.samples.iter().map(|&s| u64::from(s)).sum());
        assert_eq!(arrivals.squares, squares);
    }

    #[test]
    fn a_window_takes_its_memory_as_it_fills_and_no_more() {
        let premises = premises(PhiModel::Normal);
        assert_eq!(Arrivals::new(Instant::ZERO, &premises).samples.capacity(), 0);
        assert!(regular(&premises, 1.0, 20.0).samples.capacity() <= 32);
        assert_eq!(regular(&premises, 1.0, 5_000.0).samples.capacity(), 1_000, "4 KB");
        let none = Premises { window: 0, ..premises };
        assert_eq!(regular(&none, 1.0, 50.0).samples.capacity(), 0);
    }

    #[test]
    fn a_sign_of_life_ends_the_silence_and_is_no_sample() {
        let premises = premises(PhiModel::Exponential);
        let (mut arrivals, beats) = (regular(&premises, 1.0, 100.0), regular(&premises, 1.0, 101.0));
        for i in 0..50 {
            arrivals.live(at(100.0 + 0.01 * f64::from(i)));
        }
        assert_eq!(arrivals.samples(), 100);
        assert_eq!(arrivals.phi(at(100.49), PhiModel::Exponential), 0.0);
        arrivals.arrive(at(101.0), &premises);
        assert_eq!((arrivals.samples(), arrivals.sum), (101, beats.sum), "from heartbeat to heartbeat");
    }

    #[test]
    fn time_that_we_lost_is_nobodys_silence() {
        let premises = premises(PhiModel::Exponential);
        let mut arrivals = regular(&premises, 1.0, 100.0);
        arrivals.give_back(secs(60.0), at(160.5));
        assert!((arrivals.phi(at(160.5), PhiModel::Exponential) - 0.5 / LN_10).abs() < 1e-3);
        arrivals.arrive(at(161.0), &premises);
        assert_eq!(arrivals.samples.last(), Some(&1_000_000));
        // Heard when we were back already: no time ahead of us.
        arrivals.give_back(secs(60.0), at(162.0));
        assert_eq!(arrivals.life, at(162.0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        /// The deadline is where φ crosses: below the threshold before, at it or above after.
        #[test]
        fn a_deadline_is_where_phi_reaches_its_threshold(
            intervals in prop::collection::vec(0..20_000_000_u64, 0..40),
            threshold in 0.4..300.0_f64,
            exponential: bool,
        ) {
            let model = MODELS[usize::from(exponential)];
            let premises = premises(model);
            let (mut arrivals, mut now) = (Arrivals::new(Instant::ZERO, &premises), 0);
            for interval in intervals {
                now += interval * 1_000;
                arrivals.arrive(Instant::from_nanos(now), &premises);
            }
            let deadline = arrivals.deadline(Limit::new(model, threshold));
            let little = Duration::from_micros(100);
            prop_assert!(arrivals.phi(deadline - little, model) <= threshold);
            prop_assert!(arrivals.phi(deadline + little, model) >= threshold);
        }

        /// However heartbeats came, φ rises with silence, and the mean lies between what was heard and what was assumed.
        #[test]
        fn whatever_came_suspicion_only_grows(
            intervals in prop::collection::vec(0..u64::from(u32::MAX), 0..40),
            silences in prop::collection::vec(0..100_000_000_u64, 2..20),
            exponential: bool,
        ) {
            let model = MODELS[usize::from(exponential)];
            let premises = premises(model);
            let (mut arrivals, mut now) = (Arrivals::new(Instant::ZERO, &premises), 0);
            for interval in &intervals {
                now += interval * 1_000;
                arrivals.arrive(Instant::from_nanos(now), &premises);
            }
            prop_assert!(arrivals.mean <= 10e6 && arrivals.deviation >= 100e3 && arrivals.deviation <= 10e6);
            let mut silences = silences;
            silences.sort_unstable();
            let phi = |s: &u64| arrivals.phi(Instant::from_nanos(now + s * 1_000), model);
            prop_assert!(silences.windows(2).all(|w| phi(&w[0]) <= phi(&w[1]) + 1e-13));
        }
    }
}
