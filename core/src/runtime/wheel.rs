//! Who drives: the sockets and timers of a runtime are in one thread's hands at a time, and that thread holds the wheel.
//!
//! Mostly it is the runtime's own. But where a thread waits for what comes, and does so again as soon as it has it, each
//! message would wake two threads, one after the other: ours to read it, theirs to hear of it. So such a thread drives as
//! long as it waits, and ours stands by (the pattern Leader/Followers; Schmidt et al., 2000). It may be one of the
//! application's, that waits for items or for an answer, or the one that runs callbacks.
//!
//! ```text
//!         what somebody who has asked for it awaits has come        waits again soon
//!   OURS ─────────────────────────────────────────────────▶ FREE ────────────────────▶ GUEST
//!    ▲                                                      │  ▲                         │
//!    └───────────── nobody takes it for PATIENCE ───────────┘  └── what it awaits came ──┘
//! ```
//! Nobody is woken for a change of hands. Who waits again within SOON asks for the wheel; ours lays it down when it has
//! brought what is waited for, and who waits again within SOON takes it up. Who does not, because its handler takes
//! longer, has lost it: ours takes it after PATIENCE at the latest, and gives it to nobody before somebody was quick
//! CAUTION times, or more where that happens again and again. So what others send, and timers, are held up for PATIENCE
//! at most, and seldom.
//!
//! Nor does a guest keep the wheel in a flood: there two threads, one that reads and one that handles, get on faster
//! than one.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::lock::{Condvar, Mutex, MutexGuard};
use super::share::forked;
use super::threads;
use crate::error::Result;

/// Who waits again within this time is in a loop: far above what a short handler takes, far below PATIENCE. Chosen.
const SOON: Duration = Duration::from_micros(100);

/// How long nobody may hold the wheel. With a guest in a loop ours looks after it as often. Chosen: it is small beside
/// every interval of the protocol, and two thousand looks a second cost about one per cent of a core.
const PATIENCE: Duration = Duration::from_micros(500);

/// How often somebody has to be quick after somebody was not: twice as often each time, as long as guests have it for
/// fewer than RUN messages in a row. Chosen: with that about one message in a thousand has to wait for PATIENCE.
const CAUTION: u64 = 32;
const CAUTION_MAX: u64 = 1024;
const RUN: u64 = 256;

pub(crate) struct Wheel {
    state: Mutex<State>,
    /// Our own thread stands by.
    ours: Condvar,
}

/// What a thread waits for: so that only who is meant is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Items in the inbox of the node at this address.
    Items(usize),
    /// The answer to what this thread has asked.
    Answer(threads::Id),
    /// Callbacks to run.
    Callbacks,
}

struct State {
    holder: Holder,
    /// Who wants the wheel waits for this.
    asked: Option<Awaited>,
    /// It has come.
    called: bool,
    /// So often somebody has to be quick before the wheel is to be had, and after the last loss had to.
    caution: u64,
    caution_before: u64,
    /// Ours is to take it at once.
    hurry: bool,
    /// Ours stands by without looking after it from time to time.
    asleep: bool,
    /// How often a guest has laid it down, and had when ours did last.
    laid_down: u64,
    laid_down_before: u64,
}

enum Holder {
    Ours,
    Guest(threads::Id, Awaited),
    Free {
        driver: Box<Driver>,
        since: Instant,
        /// Who has laid it down.
        by: threads::Id,
    },
    /// Nobody drives any more.
    Over,
}

thread_local! {
    /// When this thread last had what it waited for, and at which wheel.
    static LEFT: Cell<Option<(usize, Instant)>> = const { Cell::new(None) };
}

impl Wheel {
    /// In our own thread's hands.
    pub(crate) fn new() -> Wheel {
        let state = State {
            holder: Holder::Ours,
            asked: None,
            called: false,
            caution: 0,
            caution_before: CAUTION / 2,
            hurry: false,
            asleep: false,
            laid_down: 0,
            laid_down_before: 0,
        };
        Wheel { state: Mutex::new(state), ours: Condvar::new() }
    }

    // --- our own thread ---

    /// After each round of ours: gives the driver away if somebody is about to take it, and stands by until it is back.
    /// `None`: it has ended in a guest's hands.
    pub(crate) fn pass_round(&self, driver: Box<Driver>) -> Option<Box<Driver>> {
        let mut state = self.state.lock();
        if !std::mem::take(&mut state.called) || driver.is_flooded() || driver.is_ending() {
            return Some(driver);
        }
        state.holder = Holder::Free { driver, since: Instant::now(), by: threads::current() };
        state.asked = None;
        state.laid_down_before = state.laid_down;
        self.stand_by(state)
    }

    fn stand_by(&self, mut state: MutexGuard<'_, State>) -> Option<Box<Driver>> {
        let mut seen = state.laid_down;
        loop {
            let now = Instant::now();
            let until = match &state.holder {
                Holder::Over => return None,
                Holder::Free { since, .. } if state.hurry || *since + PATIENCE <= now => {
                    if !std::mem::take(&mut state.hurry) {
                        state.beware();
                    }
                    return state.take(Holder::Ours);
                }
                Holder::Free { since, .. } => *since + PATIENCE,
                Holder::Guest(..) | Holder::Ours if state.laid_down != seen => now + PATIENCE,
                Holder::Guest(..) | Holder::Ours => {
                    state.asleep = true;
                    self.ours.wait(&mut state);
                    state.asleep = false;
                    continue;
                }
            };
            seen = state.laid_down;
            let _ = self.ours.wait_until(&mut state, until);
        }
    }

    // --- those who wait ---

    /// This thread waits from now on, and may drive meanwhile.
    pub(crate) fn visit(&self, awaited: Awaited) -> Visit<'_> {
        let (own, is_soon) = (threads::current(), self.was_here_just_now());
        let mut state = self.state.lock();
        let mut driver = None;
        match state.holder {
            Holder::Free { .. } if is_soon && !state.hurry => driver = state.take(Holder::Guest(own, awaited)),
            // It had it, and comes back too late.
            Holder::Free { by, .. } if !is_soon && by == own => {
                state.beware();
                self.hurry(&mut state);
            }
            Holder::Ours if is_soon && state.caution > 0 => state.caution -= 1,
            Holder::Ours if is_soon => (state.asked, state.called) = (Some(awaited), false),
            Holder::Free { .. } | Holder::Ours | Holder::Guest(..) | Holder::Over => {}
        }
        Visit { wheel: self, driver }
    }

    fn was_here_just_now(&self) -> bool {
        LEFT.get().is_some_and(|(wheel, at)| wheel == self.address() && at.elapsed() < SOON)
    }

    fn address(&self) -> usize {
        &raw const *self as usize
    }

    fn lay_down(&self, driver: Box<Driver>) {
        let mut state = self.state.lock();
        let is_urgent = driver.is_flooded() || driver.is_ending();
        state.holder = Holder::Free { driver, since: Instant::now(), by: threads::current() };
        state.laid_down += 1;
        if is_urgent {
            // Floods come one after the other.
            state.caution = CAUTION;
            self.hurry(&mut state);
        } else if state.asleep {
            self.ours.notify_one();
        }
    }

    /// Ours takes it as soon as it can.
    fn hurry(&self, state: &mut State) {
        state.hurry = true;
        self.ours.notify_one();
    }

    /// The driver has ended in a guest's hands.
    fn end(&self) {
        let mut state = self.state.lock();
        state.holder = Holder::Over;
        self.ours.notify_one();
    }

    /// What somebody may wait for has come, and can be seen. True: it is a guest on another thread, who drives, and has to
    /// look.
    pub(crate) fn call(&self, awaited: Awaited) -> bool {
        let mut state = self.state.lock();
        state.called |= state.asked == Some(awaited);
        matches!(state.holder, Holder::Guest(thread, what) if what == awaited && thread != threads::current())
    }

    /// A guest on another thread drives.
    pub(crate) fn has_guest(&self) -> bool {
        matches!(self.state.lock().holder, Holder::Guest(thread, _) if thread != threads::current())
    }
}

/// A thread that waits, until it is dropped.
pub(crate) struct Visit<'a> {
    wheel: &'a Wheel,
    /// It drives.
    driver: Option<Box<Driver>>,
}

impl Visit<'_> {
    /// Drives until `look` finds something or the time is over, if the wheel is ours to take. `None`: nothing was found.
    /// `E_FORKED`: we are in a child now.
    pub(crate) fn drive<T>(
        &mut self,
        deadline: Option<Instant>,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        while let Some(driver) = self.driver.take() {
            let found = look();
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if found.is_some() || left.is_some_and(|left| left.is_zero()) || driver.is_ending() {
                self.wheel.lay_down(driver);
                return Ok(found);
            }
            match driver.round(left) {
                Some(driver) if driver.is_elsewhere() => {
                    std::mem::forget(driver);
                    return Err(forked());
                }
                Some(driver) => self.driver = Some(driver),
                None => self.wheel.end(),
            }
        }
        Ok(None)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        LEFT.set(Some((self.wheel.address(), Instant::now())));
    }
}

impl State {
    /// A guest did not come back in time.
    fn beware(&mut self) {
        let run = self.laid_down - self.laid_down_before;
        let caution = if run < RUN { 2 * self.caution_before } else { self.caution_before / 2 };
        self.caution_before = caution.clamp(CAUTION, CAUTION_MAX);
        self.caution = self.caution_before;
    }

    fn take(&mut self, holder: Holder) -> Option<Box<Driver>> {
        match std::mem::replace(&mut self.holder, holder) {
            Holder::Free { driver, .. } => Some(driver),
            Holder::Ours | Holder::Guest(..) | Holder::Over => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::config::Config;
    use crate::engine::Sending;
    use crate::error::Code;
    use crate::runtime::team::Command;
    use crate::runtime::{Node, NodeState, Runtime, Wait};
    use crate::view::EventKind;

    const LONG: Wait = Wait::For(Duration::from_secs(60));

    fn node(name: &str, mode: &str, seed: Option<&Node>, runtime: Option<Runtime>) -> Node {
        let mut config = Config::new();
        let quick = [("probe_interval", "200ms"), ("probe_timeout", "80ms"), ("probe_indirect_timeout", "80ms")];
        let settings = [("name", name), ("bind", "127.0.0.1:0"), ("profile", "local"), ("dispatch", mode)];
        for (key, value) in settings.into_iter().chain(quick) {
            config.set(key, value).unwrap();
        }
        config.keys = vec![[7; 32]];
        config.seeds.extend(seed.map(|seed| seed.address().unwrap().to_string()));
        let node = Node::new(&config, runtime).unwrap();
        node.start().unwrap();
        node.on_message("echo", Box::new(|m| _ = m.reply(m.data()))).unwrap();
        node
    }

    /// "a", which asks, and "b", which waits for questions on a thread of its own.
    fn pair() -> [Node; 2] {
        let a = node("a", "thread", None, None);
        let b = node("b", "manual", Some(&a), None);
        meet(&a, 2);
        [a, b]
    }

    fn meet(node: &Node, count: usize) {
        let arrivals = node.queue(EventKind::Join.bit(), 10).unwrap();
        while node.members().unwrap().members.len() < count {
            assert!(arrivals.wait(LONG), "they find each other");
            while arrivals.try_next().is_some() {}
        }
    }

    /// Until it is woken up or stopped: the answer of its last wait.
    fn serve(node: &Node) -> Result<bool> {
        loop {
            match node.wait(Wait::Forever) {
                Ok(true) => node.dispatch(0).map(drop)?,
                last => return last,
            }
        }
    }

    fn has_guest(node: &Node) -> bool {
        node.threads().is_some_and(|threads| threads.wheel.has_guest())
    }

    fn laid_down(node: &Node) -> u64 {
        node.threads().map_or(0, |threads| threads.wheel.state.lock().laid_down)
    }

    /// Asks until the thread that serves drives.
    fn ask_until_it_drives(a: &Node, b: &Node) {
        while !has_guest(b) {
            assert_eq!(a.request("b", "echo", b"?", LONG).unwrap().data(), b"?");
        }
    }

    #[test]
    fn who_waits_again_at_once_drives_and_a_wakeup_ends_its_wait() {
        let [a, b] = pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&b));
            ask_until_it_drives(&a, &b);
            b.wakeup().unwrap();
            assert_eq!(server.join().unwrap(), Ok(false));
        });
        // Nobody waits any more, and the node goes on.
        a.send("b", "nobody", b"", Sending::Receipt, Wait::Now).unwrap();
        let receipts = a.queue(EventKind::Receipt.bit(), 10).unwrap();
        assert!(receipts.wait(LONG));
    }

    #[test]
    fn timers_fire_in_a_guests_hands() {
        let [a, b] = pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&b));
            loop {
                ask_until_it_drives(&a, &b);
                let (hands, acks) = (laid_down(&b), b.stat("acks").unwrap());
                while laid_down(&b) == hands && b.stat("acks").unwrap() < acks + 3 {
                    thread::yield_now();
                }
                if has_guest(&b) && laid_down(&b) == hands {
                    break;
                }
            }
            b.wakeup().unwrap();
            assert_eq!(server.join().unwrap(), Ok(false));
        });
    }

    #[test]
    fn while_a_handler_takes_long_our_own_thread_drives() {
        let [a, b] = pair();
        let receipts = a.queue(EventKind::Receipt.bit(), 10).unwrap();
        let (tell, told) = mpsc::channel::<()>();
        let (enter, entered) = mpsc::channel();
        b.on_message(
            "slow",
            Box::new(move |_| {
                enter.send(()).unwrap();
                let _ = told.recv();
            }),
        )
        .unwrap();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&b));
            ask_until_it_drives(&a, &b);
            a.send("b", "slow", b"", Sending::BestEffort, LONG).unwrap();
            entered.recv().unwrap();
            a.send("b", "echo", b"", Sending::Receipt, LONG).unwrap();
            assert!(receipts.wait(LONG), "it is received all the same");
            assert!(!has_guest(&b));
            let acks = b.stat("acks").unwrap();
            while b.stat("acks").unwrap() < acks + 3 {
                thread::yield_now();
            }
            drop(tell);
            // And so it can be had again.
            ask_until_it_drives(&a, &b);
            assert_eq!(b.stop(Wait::Forever), Ok(()));
            assert_eq!(server.join().unwrap().unwrap_err().code, Code::State);
        });
    }

    #[test]
    fn a_node_is_stopped_while_a_guest_drives() {
        let [a, b] = pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&b));
            ask_until_it_drives(&a, &b);
            assert_eq!(b.stop(Wait::Forever), Ok(()));
            assert_eq!(server.join().unwrap().unwrap_err().code, Code::State);
        });
        assert_eq!(b.state(), NodeState::Stopped);
    }

    #[test]
    fn who_waits_for_an_answer_drives_and_hears_of_a_stop() {
        let [a, b] = pair();
        let (enter, entered) = mpsc::channel();
        let (tell, told) = mpsc::channel::<()>();
        b.on_message(
            "never",
            Box::new(move |_| {
                enter.send(()).unwrap();
                let _ = told.recv();
            }),
        )
        .unwrap();
        thread::scope(|scope| {
            scope.spawn(|| serve(&b));
            let asker = scope.spawn(|| {
                while laid_down(&a) == 0 {
                    a.request("b", "echo", b"", LONG)?;
                }
                a.request("b", "never", b"", Wait::Forever)
            });
            entered.recv().unwrap();
            assert_eq!(a.stop(Wait::Forever), Ok(()));
            assert_eq!(asker.join().unwrap().unwrap_err().code, Code::Canceled);
            drop(tell);
            b.release();
        });
    }

    #[test]
    fn the_thread_of_callbacks_drives_as_well() {
        let a = node("a", "thread", None, None);
        let b = node("b", "thread", Some(&a), None);
        meet(&a, 2);
        ask_until_it_drives(&a, &b);
        assert_eq!(b.stop(Wait::Forever), Ok(()));
    }

    #[test]
    fn of_several_that_wait_all_are_woken() {
        let runtime = Runtime::new().unwrap();
        let a = node("a", "thread", None, None);
        let [b, c] = ["b", "c"].map(|name| node(name, "manual", Some(&a), Some(runtime.clone())));
        meet(&a, 3);
        thread::scope(|scope| {
            let servers = [&b, &c].map(|node| scope.spawn(|| serve(node)));
            for i in 0..200 {
                let name = if i % 3 == 0 { "b" } else { "c" };
                assert_eq!(a.request(name, "echo", b"?", LONG).unwrap().data(), b"?");
            }
            b.release();
            // One that is left alone may drive.
            while !has_guest(&c) {
                a.request("c", "echo", b"?", LONG).unwrap();
            }
            c.release();
            for server in servers {
                assert_eq!(server.join().unwrap().unwrap_err().code, Code::State);
            }
        });
    }

    #[test]
    fn a_panic_in_a_guests_hands_fails_the_node_and_ends_our_thread() {
        let [a, b] = pair();
        thread::scope(|scope| {
            let server = scope.spawn(|| serve(&b));
            ask_until_it_drives(&a, &b);
            b.threads().unwrap().command(Command::Panic);
            assert_eq!(server.join().unwrap().unwrap_err().code, Code::Failed);
        });
        assert_eq!(b.state(), NodeState::Failed);
        assert_eq!(b.stop(Wait::Forever), Ok(()));
    }
}
