//! iroh-gossip: one topic over QUIC connections to a few neighbours. It keeps no list of members, so that a node counts as joined when
//! it has a neighbour.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use iroh::address_lookup::memory::MemoryLookup;
use iroh::endpoint::presets;
use iroh::protocol::Router;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode, TransportAddr};
use iroh_gossip::api::{Event, GossipReceiver, GossipSender, JoinOptions};
use iroh_gossip::{Gossip, TopicId};
use n0_future::StreamExt;
use tokio::runtime::{Builder, Runtime};
use work::{About, Heard, Peer, Plan};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));

/// Where the nodes of this process are.
static LOOKUP: LazyLock<MemoryLookup> = LazyLock::new(MemoryLookup::new);

struct IrohGossip {
    router: Router,
    sender: GossipSender,
    neighbours: Arc<AtomicUsize>,
    nodes: usize,
}

impl Peer for IrohGossip {
    const ABOUT: About = About {
        name: "iroh-gossip",
        sealed: "QUIC with TLS 1.3",
        joined: "each has a neighbour (it lists no members)",
        broadcast: "GossipSender::broadcast: a tree",
        reliable: "",
        best_effort: "",
        request: "",
        detects: false,
        variants: &[("default", "no relay, no address lookup beyond the process, room for 65,536 events")],
    };

    fn start(plan: Plan) -> Result<IrohGossip, String> {
        RUNTIME.block_on(start(plan)).map_err(|error| format!("{error:#}"))
    }

    fn address(&self) -> String {
        let endpoint = self.router.endpoint();
        format!("{}@{}", endpoint.id(), endpoint.bound_sockets()[0])
    }

    fn live(&self) -> usize {
        if self.neighbours.load(SeqCst) > 0 { self.nodes } else { 1 }
    }

    fn broadcast(&self, data: &[u8]) {
        RUNTIME.block_on(self.sender.broadcast(Bytes::copy_from_slice(data))).expect("the topic is open");
    }
}

async fn start(plan: Plan) -> Result<IrohGossip, Box<dyn std::error::Error>> {
    let endpoint = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .address_lookup(LOOKUP.clone())
        .clear_ip_transports()
        .bind_addr("127.0.0.1:0")?
        .bind()
        .await?;
    learn(endpoint.id(), endpoint.bound_sockets()[0]);
    let gossip = Gossip::builder().spawn(endpoint.clone());
    let router = Router::builder(endpoint).accept(iroh_gossip::ALPN, gossip.clone()).spawn();
    let mut bootstrap = Vec::new();
    if let Some((id, address)) = plan.seed.as_deref().and_then(|seed| seed.split_once('@')) {
        let id: EndpointId = id.parse()?;
        learn(id, address.parse()?);
        bootstrap.push(id);
    }
    let mut join = JoinOptions::with_bootstrap(bootstrap);
    join.subscription_capacity = 65_536;
    let (sender, receiver) = gossip.subscribe_with_opts(TopicId::from_bytes([7; 32]), join).await?.split();
    let neighbours = Arc::<AtomicUsize>::default();
    tokio::spawn(hear(receiver, plan.heard, neighbours.clone()));
    Ok(IrohGossip { router, sender, neighbours, nodes: plan.nodes })
}

fn learn(id: EndpointId, address: SocketAddr) {
    LOOKUP.add_endpoint_info(EndpointAddr { id, addrs: [TransportAddr::Ip(address)].into() });
}

async fn hear(mut receiver: GossipReceiver, heard: Heard, neighbours: Arc<AtomicUsize>) {
    while let Some(Ok(event)) = receiver.next().await {
        match event {
            Event::Received(message) => _ = heard.take(&message.content),
            Event::NeighborUp(_) => _ = neighbours.fetch_add(1, SeqCst),
            Event::NeighborDown(_) => _ = neighbours.fetch_sub(1, SeqCst),
            Event::Lagged => {}
        }
    }
}

fn main() -> ExitCode {
    work::main::<IrohGossip>()
}
