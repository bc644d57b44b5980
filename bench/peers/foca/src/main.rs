//! foca is an engine without sockets or timers; those are a task for each node here, after the agent among its examples. A broadcast is
//! one of foca's custom broadcasts.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use foca::{AccumulatingRuntime, BroadcastHandler, Config, Foca, Identity, Invalidates, PostcardCodec, Timer};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use work::{About, Heard, Peer, Plan};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));

/// Who knows nobody asks again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Id {
    address: SocketAddr,
    life: u16,
}

impl Identity for Id {
    type Addr = SocketAddr;

    fn renew(&self) -> Option<Id> {
        Some(Id { life: self.life.wrapping_add(1), ..*self })
    }

    fn addr(&self) -> SocketAddr {
        self.address
    }

    fn win_addr_conflict(&self, other: &Id) -> bool {
        self.life > other.life
    }
}

struct Agent {
    address: SocketAddr,
    others: Arc<AtomicUsize>,
    say: mpsc::Sender<Vec<u8>>,
}

impl Peer for Agent {
    const ABOUT: About = About {
        name: "foca",
        sealed: "",
        joined: "each lists all",
        broadcast: "add_broadcast: rides on what is sent",
        reliable: "",
        best_effort: "",
        request: "",
        detects: true,
        variants: &[
            ("default", "Config::new_lan"),
            ("eager", "Config::new_lan, and broadcast() after each add_broadcast()"),
        ],
    };

    fn start(plan: Plan) -> Result<Agent, String> {
        let seed = plan.seed.map(|seed| seed.parse().map_err(|_| format!("{seed}: no address"))).transpose()?;
        let socket = RUNTIME.block_on(UdpSocket::bind("127.0.0.1:0")).map_err(|error| error.to_string())?;
        let address = socket.local_addr().map_err(|error| error.to_string())?;
        let size = u32::try_from(plan.nodes).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        let (id, rng) = (Id { address, life: 0 }, StdRng::seed_from_u64(u64::from(address.port())));
        let foca = Foca::with_custom_broadcast(id, Config::new_lan(size), rng, PostcardCodec, Ears(plan.heard));
        let (others, (say, said)) = (Arc::<AtomicUsize>::default(), mpsc::channel(100));
        let is_eager = plan.variant == "eager";
        let task = Task { foca, socket, seed, others: others.clone(), said, is_eager, timers: BinaryHeap::new() };
        RUNTIME.spawn(task.run());
        Ok(Agent { address, others, say })
    }

    fn address(&self) -> String {
        self.address.to_string()
    }

    fn live(&self) -> usize {
        1 + self.others.load(SeqCst)
    }

    fn broadcast(&self, data: &[u8]) {
        self.say.blocking_send(data.to_vec()).expect("its task runs");
    }
}

struct Task {
    foca: Foca<Id, PostcardCodec, StdRng, Ears>,
    socket: UdpSocket,
    seed: Option<SocketAddr>,
    others: Arc<AtomicUsize>,
    said: mpsc::Receiver<Vec<u8>>,
    is_eager: bool,
    timers: BinaryHeap<Reverse<(Instant, Timer<Id>)>>,
}

impl Task {
    async fn run(mut self) {
        let (mut runtime, mut buf, mut ask) = (AccumulatingRuntime::new(), vec![0; 65_536], Instant::now());
        loop {
            let timer = self.timers.peek().map(|Reverse((at, _))| *at);
            let is_alone = self.seed.is_some() && self.foca.num_members() == 0;
            // What foca refuses, it has no use for: as in its example.
            let _ = tokio::select! {
                Ok((size, _)) = self.socket.recv_from(&mut buf) => self.foca.handle_data(&buf[..size], &mut runtime),
                () = sleep_until(timer.unwrap_or(ask)), if timer.is_some() => match self.timers.pop() {
                    Some(Reverse((_, timer))) => self.foca.handle_timer(timer, &mut runtime),
                    None => Ok(()),
                },
                () = sleep_until(ask), if is_alone => {
                    ask += AGAIN;
                    self.seed.map_or(Ok(()), |address| self.foca.announce(Id { address, life: 0 }, &mut runtime))
                },
                said = self.said.recv() => match said {
                    Some(data) => self.foca.add_broadcast(&data).and_then(|_| match self.is_eager {
                        true => self.foca.broadcast(&mut runtime),
                        false => Ok(()),
                    }),
                    None => return,
                },
            };
            while let Some((to, data)) = runtime.to_send() {
                let _ = self.socket.send_to(&data, to.address).await;
            }
            let now = Instant::now();
            while let Some((after, timer)) = runtime.to_schedule() {
                self.timers.push(Reverse((now + after, timer)));
            }
            while runtime.to_notify().is_some() {}
            self.others.store(self.foca.num_members(), SeqCst);
        }
    }
}

struct Ears(Heard);

/// No message makes another one stale.
struct Key;

impl Invalidates for Key {
    fn invalidates(&self, _: &Key) -> bool {
        false
    }
}

impl BroadcastHandler<Id> for Ears {
    type Key = Key;
    type Error = Infallible;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Id>) -> Result<Option<Key>, Infallible> {
        let is_new = self.0.take(data);
        // What we say ourselves comes without a sender.
        Ok((is_new || sender.is_none()).then_some(Key))
    }
}

fn main() -> ExitCode {
    work::main::<Agent>()
}
