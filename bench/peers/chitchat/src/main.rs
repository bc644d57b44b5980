//! chitchat: every node has a map of its own, which the others read. A broadcast is a key that nobody had before.

use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use chitchat::transport::UdpTransport;
use chitchat::{ChitchatConfig, ChitchatHandle, ChitchatId, ProtocolVersion, spawn_chitchat};
use tokio::runtime::{Builder, Runtime};
use work::{About, Peer, Plan, free_port};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));

struct Chitchat(ChitchatHandle);

impl Peer for Chitchat {
    const ABOUT: About = About {
        name: "chitchat",
        sealed: "",
        joined: "each lists all",
        broadcast: "a new key of the sender's, told by the receivers' listeners",
        reliable: "",
        best_effort: "",
        request: "",
        detects: true,
        variants: &[("default", "gossip every 1 s, phi 8"), ("fast", "gossip every 100 ms, phi 8")],
    };

    fn start(plan: Plan) -> Result<Chitchat, String> {
        let address = free_port()?;
        let config = ChitchatConfig {
            chitchat_id: ChitchatId::new(plan.name, 0, address),
            cluster_id: "bench".into(),
            gossip_interval: Duration::from_millis(if plan.variant == "fast" { 100 } else { 1000 }),
            listen_addr: address,
            seed_nodes: plan.seed.into_iter().collect(),
            failure_detector_config: Default::default(),
            marked_for_deletion_grace_period: Duration::from_secs(15 * 60),
            catchup_callback: None,
            extra_liveness_predicate: None,
            protocol_version: ProtocolVersion::V0,
        };
        let handle = RUNTIME.block_on(spawn_chitchat(config, Vec::new(), &UdpTransport)).map_err(|e| e.to_string())?;
        let heard = plan.heard;
        RUNTIME
            .block_on(handle.chitchat().lock_owned())
            .subscribe_event("", move |event| _ = heard.take(event.value.as_bytes()))
            .forever();
        Ok(Chitchat(handle))
    }

    fn address(&self) -> String {
        self.0.chitchat_id().gossip_advertise_addr.to_string()
    }

    fn live(&self) -> usize {
        RUNTIME.block_on(self.0.with_chitchat(|chitchat| chitchat.live_nodes().count()))
    }

    fn broadcast(&self, data: &[u8]) {
        let text = std::str::from_utf8(data).expect("messages are text");
        RUNTIME.block_on(self.0.with_chitchat(|chitchat| chitchat.self_node_state().set(&text[..16], text)));
    }
}

fn main() -> ExitCode {
    work::main::<Chitchat>()
}
