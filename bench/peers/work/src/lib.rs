//! What is measured, written once for all peers that have a Rust interface. A peer's program is its [`Peer`]: how to start a
//! node, to count members, to say something. The same loops run over each, so that none is measured in a kinder way.
//!
//!     peer-NAME about                                                what it is, and which works it can do
//!     peer-NAME WORK [nodes=10] [bytes=256] [seconds=3] [variant=…]  one line of JSON: its figures
//!     peer-NAME member [seed=ADDRESS]                                one node until standard input ends; a line for each change
//!
//! All nodes of a work live in one process, on two threads of the peer's runtime; who is to be killed has a process of its own.
//! bench/peers/{go-memberlist,gossipmonger,python} say the same words for other languages.

mod cluster;
mod heard;
mod machine;
mod member;
mod options;
mod ports;
mod report;
mod works;

use std::process::ExitCode;

pub use cluster::Plan;
pub use heard::Heard;
pub use machine::{Usage, cpu_seconds};
pub use options::Options;
pub use ports::free_port;
pub use report::Figures;

/// Everything has to end: no work waits longer than this for anything.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(60);

pub struct About {
    pub name: &'static str,
    /// What protects its traffic as it is configured here; empty: it is sent in clear.
    pub sealed: &'static str,
    /// What a node knows when it counts as joined.
    pub joined: &'static str,
    /// What stands for a broadcast; empty: it has none.
    pub broadcast: &'static str,
    /// What stands for a message to one member that is sure to come; empty: it has none.
    pub reliable: &'static str,
    /// For one that may be lost; empty: it has none.
    pub best_effort: &'static str,
    /// A question to one member and its answer; empty: it has none.
    pub request: &'static str,
    /// Whether it tells when a member dies.
    pub detects: bool,
    /// Name and what it changes. The first is what its documentation starts with; `sealed` is the same with its traffic
    /// protected, and its text is what protects it.
    pub variants: &'static [(&'static str, &'static str)],
}

/// One node. It runs until it is dropped, and is gone then without a good-bye.
pub trait Peer: Send + Sync + Sized + 'static {
    const ABOUT: About;

    /// Begins to join, and does not wait for that.
    fn start(plan: Plan) -> Result<Self, String>;

    /// Where others join through it. Only this peer has to understand it.
    fn address(&self) -> String;

    /// Members that it holds to be alive, itself included.
    fn live(&self) -> usize;

    /// Returns once the node has taken it.
    fn broadcast(&self, _data: &[u8]) {
        unreachable!("ABOUT says that there is none")
    }

    /// Returns once the node has taken it.
    fn send(&self, _to: &Self, _data: &[u8], _reliable: bool) {
        unreachable!("ABOUT says that there is none")
    }

    /// Returns with the answer. The other node answers with the same bytes.
    fn request(&self, _to: &Self, _data: &[u8]) {
        unreachable!("ABOUT says that there is none")
    }
}

pub fn main<P: Peer>() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let work = words.next().unwrap_or_default();
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(trouble) => return report::failed(&trouble),
    };
    heard::prepare();
    let done = match work.as_str() {
        "about" => Ok(report::about(&P::ABOUT)),
        "member" => return member::run::<P>(&options),
        "join" => works::join::<P>(&options),
        "detect" => works::detect::<P>(&options),
        "broadcast" => works::broadcast::<P>(&options),
        "bulk" => works::bulk::<P>(&options),
        "direct" => works::direct::<P>(&options),
        "request" => works::request::<P>(&options),
        "idle" => works::idle::<P>(&options),
        other => Err(format!("no work is called {other:?}")),
    };
    match done {
        Ok(line) => report::said(&line),
        Err(trouble) => report::failed(&trouble),
    }
}
