//! memberlist by al8n: a delegate hears messages, and offers what it has to say whenever a packet leaves. A broadcast is heard and
//! offered again by every node that had not heard it, as serf does with hashicorp/memberlist.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use memberlist::bytes::Bytes;
use memberlist::delegate::{CompositeDelegate, NodeDelegate, VoidDelegate};
use memberlist::net::NetTransportOptions;
use memberlist::proto::{EncryptionAlgorithm, MaybeResolvedAddress, SecretKey};
use memberlist::queue::TransmitLimitedQueue;
use memberlist::tokio::{TokioSocketAddrResolver, TokioTcp, TokioTcpMemberlist};
use memberlist::{Broadcast, Options};
use tokio::runtime::{Builder, Runtime};
use work::{About, Heard, Peer, Plan};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));

/// Before a message: to all, or to this node only.
const TO_ALL: u8 = b'*';
const TO_ONE: u8 = b'.';

type Id = smol_str::SmolStr;
type Void = VoidDelegate<Id, SocketAddr>;
type Ears = CompositeDelegate<Id, SocketAddr, Void, Void, Void, Void, Gossip>;

struct Memberlist {
    node: TokioTcpMemberlist<Id, TokioSocketAddrResolver, Ears>,
    queue: Queue,
}

type Queue = Arc<TransmitLimitedQueue<Rumor, Arc<AtomicUsize>>>;

impl Peer for Memberlist {
    const ABOUT: About = About {
        name: "memberlist (Rust)",
        sealed: "",
        joined: "each lists all",
        broadcast: "TransmitLimitedQueue, and again at each receiver",
        reliable: "send_reliable: a TCP connection each",
        best_effort: "send: UDP",
        request: "",
        detects: true,
        variants: &[
            ("default", "Options::lan"),
            ("local", "Options::local"),
            ("sealed", "AES-256-GCM with one key of the cluster"),
        ],
    };

    fn start(plan: Plan) -> Result<Memberlist, String> {
        let options = match plan.variant.as_str() {
            "local" => Options::local(),
            // A key alone seals nothing.
            "sealed" => Options::lan()
                .with_primary_key(SecretKey::Aes256([7; 32]))
                .with_encryption_algo(EncryptionAlgorithm::NoPadding)
                .with_gossip_verify_incoming(true)
                .with_gossip_verify_outgoing(true),
            _ => Options::lan(),
        };
        let queue: Queue = Arc::new(TransmitLimitedQueue::new(4, Arc::new(AtomicUsize::new(plan.nodes))));
        let gossip = Gossip { heard: plan.heard, queue: queue.clone() };
        let mut transport = NetTransportOptions::<Id, TokioSocketAddrResolver, TokioTcp>::new(plan.name.into());
        transport.add_bind_address(SocketAddr::from(([127, 0, 0, 1], 0)));
        let delegate = CompositeDelegate::new().with_node_delegate(gossip);
        let node = RUNTIME
            .block_on(TokioTcpMemberlist::with_delegate(delegate, transport, options))
            .map_err(|error| error.to_string())?;
        if let Some(seed) = plan.seed {
            let seed: SocketAddr = seed.parse().map_err(|_| format!("{seed}: no address"))?;
            RUNTIME.spawn(join(node.clone(), seed));
        }
        Ok(Memberlist { node, queue })
    }

    fn address(&self) -> String {
        self.node.advertise_address().to_string()
    }

    fn live(&self) -> usize {
        RUNTIME.block_on(self.node.num_online_members())
    }

    fn broadcast(&self, data: &[u8]) {
        RUNTIME.block_on(self.queue.queue_broadcast(Rumor(marked(TO_ALL, data))));
    }

    fn send(&self, to: &Memberlist, data: &[u8], reliable: bool) {
        let (to, data) = (to.node.advertise_address(), marked(TO_ONE, data));
        // What is not sent is not heard, and counted there.
        let _ = match reliable {
            true => RUNTIME.block_on(self.node.send_reliable(to, data)),
            false => RUNTIME.block_on(self.node.send(to, data)),
        };
    }
}

async fn join(node: TokioTcpMemberlist<Id, TokioSocketAddrResolver, Ears>, seed: SocketAddr) {
    while node.join(MaybeResolvedAddress::Resolved(seed)).await.is_err() {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn marked(mark: u8, data: &[u8]) -> Bytes {
    [&[mark], data].concat().into()
}

struct Gossip {
    heard: Heard,
    queue: Queue,
}

impl NodeDelegate for Gossip {
    async fn notify_message(&self, message: Cow<'_, [u8]>) {
        if let Some((mark, data)) = message.split_first()
            && self.heard.take(data)
            && *mark == TO_ALL
        {
            self.queue.queue_broadcast(Rumor(Bytes::copy_from_slice(&message))).await;
        }
    }

    async fn broadcast_messages<F>(&self, limit: usize, _: F) -> impl Iterator<Item = Bytes> + Send
    where
        F: Fn(Bytes) -> (usize, Bytes) + Send + Sync + 'static,
    {
        self.queue.get_broadcasts(limit).await.into_iter()
    }
}

#[derive(Debug)]
struct Rumor(Bytes);

impl Broadcast for Rumor {
    type Id = Id;
    type Message = Bytes;

    fn id(&self) -> Option<&Id> {
        None
    }

    fn invalidates(&self, _: &Rumor) -> bool {
        false
    }

    fn message(&self) -> &Bytes {
        &self.0
    }

    /// With the header that memberlist puts before it.
    fn encoded_len(message: &Bytes) -> usize {
        message.len() + 5
    }

    async fn finished(&self) {}

    fn is_unique(&self) -> bool {
        true
    }
}

fn main() -> ExitCode {
    work::main::<Memberlist>()
}
