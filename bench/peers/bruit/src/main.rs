//! bruit, with a key as its users have, and the defaults of its `lan` profile.

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use bruit_core::config::Config;
use bruit_core::engine::Sending;
use bruit_core::message::ToAll;
use bruit_core::runtime::{Node, Runtime, Wait};
use work::{About, Peer, Plan};

/// One thread for sockets and one for callbacks each.
static RUNTIMES: LazyLock<Vec<Runtime>> = LazyLock::new(|| (0..2).map(|_| Runtime::new().expect("threads")).collect());

const LONG: Wait = Wait::For(Duration::from_secs(20));

struct Bruit {
    node: Node,
    name: String,
}

impl Peer for Bruit {
    const ABOUT: About = About {
        name: "bruit",
        sealed: "ChaCha20-Poly1305, one key of the cluster",
        joined: "each lists all",
        broadcast: "Node::broadcast: a tree, repaired by digests",
        reliable: "Node::send, reliable",
        best_effort: "Node::send, best effort",
        request: "Node::request",
        detects: true,
        variants: &[("default", "profile lan")],
    };

    fn start(plan: Plan) -> Result<Bruit, String> {
        let said = |error: bruit_core::Error| error.to_string();
        let mut config = Config::new();
        config.set("name", &plan.name).map_err(said)?;
        config.set("bind", "127.0.0.1:0").map_err(said)?;
        config.keys = vec![[7; 32]];
        config.seeds.extend(plan.seed);
        let number: usize = plan.name.bytes().map(usize::from).sum();
        let node = Node::new(&config, Some(RUNTIMES[number % RUNTIMES.len()].clone())).map_err(said)?;
        let heard = plan.heard;
        node.on_message("", Box::new(move |message| _ = heard.take(message.data()))).map_err(said)?;
        node.on_message("echo", Box::new(|question| _ = question.reply(question.data()))).map_err(said)?;
        node.start().map_err(said)?;
        Ok(Bruit { node, name: plan.name })
    }

    fn address(&self) -> String {
        self.node.address().expect("it is started").to_string()
    }

    fn live(&self) -> usize {
        self.node.members().map_or(0, |view| view.live().count())
    }

    fn broadcast(&self, data: &[u8]) {
        self.node.broadcast("", data, ToAll::default(), LONG).expect("there is room in time");
    }

    fn send(&self, to: &Bruit, data: &[u8], reliable: bool) {
        let how = if reliable { Sending::Reliable } else { Sending::BestEffort };
        self.node.send(&to.name, "", data, how, LONG).expect("there is room in time");
    }

    fn request(&self, to: &Bruit, data: &[u8]) {
        self.node.request(&to.name, "echo", data, LONG).expect("an answer");
    }
}

fn main() -> ExitCode {
    work::main::<Bruit>()
}
