//! The table. A row is an option; the macro turns the rows into the fields of [`Config`], their parsing and bounds,
//! and the descriptors that the documentation and the other languages are made from.
//!
//! ```text
//! /// What it does.
//! field: type as codec = lan default [/ wan / local], [in least to most,] [unit "…",] from "source of the default" [, live];
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use super::text::{Advertised, Bool, Codec, Count, Listen, Name, Number, Ratio, Size, Time};
use super::{Broadcast, Detector, Dispatch, Membership, Milli, OptionDesc, PhiModel, ProbeOrder, Profile, Transport};
use crate::error::Result;
use crate::time::Duration;

/// How a row is written and read by its key.
pub(super) struct Access {
    pub set: fn(&mut Config, &str) -> Result<()>,
    pub get: fn(&Config) -> String,
}

macro_rules! options {
    ($(group $group:literal { $(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty as $codec:ident = $lan:literal $(/ $wan:literal / $local:literal)?,
        $(in $low:literal to $high:literal,)? $(unit $unit:literal,)? from $source:literal $(, $live:ident)?;
    )+ })+) => {
        /// All that a node wants to know before it starts.
        ///
        /// The fields may be written directly; [`Config::validate`] then says whether they make sense together.
        /// A field that was written in either way keeps its value when the profile changes.
        #[derive(Clone, PartialEq)]
        pub struct Config {
            $($(
                $(#[doc = $doc])+
                pub $field: $type,
            )+)+
            /// Whom to contact first: `host[:port]`. See [`Config::add_seed`].
            pub seeds: Vec<String>,
            /// The first one seals, all open. See [`Config::add_key`].
            pub keys: Vec<[u8; 32]>,
            /// What this node tells about itself from its first moment. See [`Config::set_meta`].
            pub meta: Vec<(String, Vec<u8>)>,
            /// Rows that `set` wrote, a bit each.
            pub(super) explicit: u128,
        }

        impl Config {
            /// The defaults of the `lan` profile.
            pub fn new() -> Config {
                Config {
                    $($($field: <$codec as Codec>::parse(concat!($lan)).expect("a test reads every default"),)+)+
                    seeds: Vec::new(),
                    keys: Vec::new(),
                    meta: Vec::new(),
                    explicit: 0,
                }
            }
        }

        pub(super) static DESCS: &[OptionDesc] = &[$($(OptionDesc {
            key: stringify!($field),
            kind: <$codec as Codec>::KIND,
            unit: first!($($unit,)? <$codec as Codec>::UNIT),
            lan: concat!($lan),
            wan: first!($(concat!($wan),)? concat!($lan)),
            local: first!($(concat!($local),)? concat!($lan)),
            bounds: first!($(concat!($low, " to ", $high),)? <$codec as Codec>::BOUNDS),
            live: first!($(live!($live),)? false),
            choices: <$codec as Codec>::CHOICES,
            source: $source,
            doc: concat!($($doc),+).trim_ascii(),
            group: $group,
        },)+)+];

        pub(super) static ACCESS: &[Access] = &[$($(Access {
            set: |config, text| {
                let range = first!($(Some((concat!($low), concat!($high))),)? None);
                config.$field = <$codec as Codec>::read(stringify!($field), text, range)?;
                Ok(())
            },
            get: |config| <$codec as Codec>::print(&config.$field),
        },)+)+];
    };
}

macro_rules! first {
    ($first:expr $(, $rest:expr)*) => {
        $first
    };
}

macro_rules! live {
    (live) => {
        true
    };
}

options! {
group "Who and where" {
    /// This node's name, unique in the cluster. Empty: host name, process id and a random part, so that forked workers and restarted containers never clash.
    name: String as Name = "", from "departure from memberlist, whose default is the host name";
    /// Where to listen, UDP and TCP on one port. Port 0 takes any port that is free for both.
    bind: String as Listen = "0.0.0.0:18946", from "chosen: below the ephemeral ports of Linux, not assigned by IANA";
    /// What other members are told to send to, where that differs from `bind` (NAT, containers). Empty: found out from `bind` and from what peers see.
    advertise: String as Advertised = "", from "memberlist's AdvertiseAddr and AdvertisePort";
    /// The cluster's label. Nodes with different labels never hear each other, even where addresses are reused.
    cluster: String as Name = "", from "memberlist's Label, which has the same limit";
    /// `full`: each member lists all. `partial`: each lists its neighbours in the overlay and no others, for clusters beyond some 10,000; all members must agree on it. See docs/OVERLAY.md.
    membership: Membership as Membership = "full", from "SWIM's list, and HyParView's views (Leitão et al., DSN 2007) alone";
    /// Picks the column of defaults for every option that is not set.
    profile: Profile as Profile = "lan" / "wan" / "local", from "memberlist's three configurations";
    /// `both` sends what fits by UDP and the rest by TCP; `tcp` sends everything by TCP, for networks that block UDP.
    transport: Transport as Transport = "both", from "memberlist needs both; `tcp` is ours";
    /// Allows a node without keys beyond the loopback interface. Everybody who can reach the port can then read, forge and join.
    insecure_plaintext: bool as Bool = false, from "departure from memberlist and Serf, which are plaintext unless told otherwise";
    /// A number of the application's own, shown to all members: what it speaks, not what bruit speaks.
    app_version: u32 as Number = 0, in 0 to 4294967295, from "memberlist's DelegateProtocolVersion, which is 0 too";
    /// A node that joins through this one with a lower `app_version` is refused. Members should agree on it: who was let in by another is listed.
    app_version_min: u32 as Number = 0, in 0 to 4294967295, from "memberlist's DelegateProtocolMin, which is 0 too";
}

group "Finding and healing" {
    /// First pause before a seed that did not answer is tried again. It doubles up to `seed_retry_max`.
    seed_retry_min: Duration as Time = "200ms" / "500ms" / "100ms", in "1ms" to "1m", from "chosen by feel: a cluster that boots together should not wait for a second round";
    /// Longest pause between two tries of a seed. They never stop.
    seed_retry_max: Duration as Time = "30s" / "1m" / "15s", in "10ms" to "1h", from "Serf's -retry-interval (lan)";
    /// So often a seed, a dead member or a remembered address is contacted although all is well. This is what heals a partition.
    heal_interval: Duration as Time = "30s" / "1m" / "15s", in "100ms" to "1h", from "Serf's ReconnectInterval (lan)", live;
    /// One attempt to contact somebody gives up after this.
    join_timeout: Duration as Time = "5s" / "10s" / "3s", in "100ms" to "10m", from "chosen by feel: memberlist's TCPTimeout is 10s, 30s and 1s";
}

group "Failure detection" {
    /// How the dead are found: `swim` probes, `phi` sends heartbeats and judges silence by the intervals so far. See docs/FAILURE_DETECTION.md.
    detector: Detector as Detector = "swim", from "chosen: SWIM's costs do not grow with the cluster; memberlist and Serf have nothing else, Akka and Cassandra have phi";
    /// Once in this time one member is probed: SWIM's protocol period. Local trouble stretches it (`local_health_max`). With `detector = phi`: one heartbeat.
    probe_interval: Duration as Time = "1s" / "2s" / "500ms", in "10ms" to "10m", from "memberlist's LAN profile (SWIM §5 has 2 s); departure: memberlist has 5s for WAN and 1s for local", live;
    /// How long a direct probe waits for its answer before others are asked: always while no round trip is known, at most afterwards.
    probe_timeout: Duration as Time = "300ms" / "1500ms" / "100ms", in "1ms" to "10m", from "swept: docs/TUNING.md; below memberlist's 500ms, 3s and 200ms: too early costs only a few indirect probes", live;
    /// The direct stage is never shorter than this, however fast the member used to answer.
    probe_timeout_min: Duration as Time = "100ms" / "300ms" / "50ms", in "1ms" to "10m", from "swept: docs/TUNING.md; longer than a scheduler's or a collector's usual pause", live;
    /// Lets the direct stage follow the member's measured round trips, between the two limits above.
    probe_adaptive: bool as Bool = true, from "ours; memberlist's is fixed", live;
    /// How long the indirect stage and the stream ping wait.
    probe_indirect_timeout: Duration as Time = "300ms" / "1500ms" / "100ms", in "1ms" to "10m", from "chosen by feel: as long as the direct stage at its longest", live;
    /// Members that are asked to probe one that did not answer: SWIM's k. 0 skips the indirect stage.
    indirect_checks: usize as Count = 3 / 5 / 3, in 0 to 16, unit "members", from "swept: docs/TUNING.md; lan: memberlist's LAN profile; SWIM §5 measures with 1", live;
    /// Probes by stream beside the indirect probes. A member that answers only there lives, and a warning says that UDP is blocked.
    stream_ping: bool as Bool = true, from "memberlist's TCP ping", live;
    /// Who is probed next. `robin` goes through a shuffled list; `permutation` is one order that all members compute, so that each is probed once in a period.
    probe_order: ProbeOrder as ProbeOrder = "permutation", from "departure from SWIM §4.3, which is `robin`: its longest wait for a probe is 2n - 1 periods", live;
    /// Members asked for an indirect probe also report that they got no answer. Where such reports are missing, the prober doubts itself.
    nacks: bool as Bool = true, from "Lifeguard §IV", live;
    /// A suspected member hears of it with the next probe that it gets, whatever else waits to be sent.
    buddy: bool as Bool = true, from "Lifeguard §IV, Buddy System", live;
    /// α: a suspicion that others confirm lasts α · max(1, log10 n) · `probe_interval`.
    suspicion_mult: Milli as Ratio = "1.0" / "1.5" / "1.0", in "0.1" to "100.0", from "swept: docs/TUNING.md; below the 2 to 5 of Lifeguard §V and memberlist's 4: `suspicion_probes` find out sooner", live;
    /// β: a suspicion that nobody confirms lasts β times as long.
    suspicion_max_mult: Milli as Ratio = "3.0", in "1.0" to "100.0", from "swept: docs/TUNING.md; within the 2 to 6 of Lifeguard §V; memberlist has 6", live;
    /// K: confirmations of others that bring a suspicion down to its shortest time.
    suspicion_confirmations: usize as Count = 3, in 0 to 7, unit "members", from "swept: docs/TUNING.md; Lifeguard §V (K = 3)", live;
    /// Members that are asked to probe a suspect at once, so that they refute or confirm. 0: none, as in SWIM.
    suspicion_probes: usize as Count = 4, in 0 to 32, unit "members", from "swept: docs/TUNING.md; one more than `suspicion_confirmations` wants", live;
    /// S: the worst score that local health can reach; probe intervals and timeouts grow by 1 + score. 0 switches it off.
    local_health_max: usize as Count = 8, in 0 to 64, from "swept: docs/TUNING.md; Lifeguard §V (S = 8)", live;
    /// With `detector = phi`: a member is suspected when φ, its silence as minus the logarithm of its probability, reaches this. 8 is a mistake in 10^8, where the model holds.
    phi_threshold: Milli as Ratio = "8.0", in "0.5" to "300.0", from "Akka, Cassandra and chitchat; Hayashibara et al. 2004 leave it to the application", live;
    /// With `detector = phi`: what intervals are taken to look like. `exponential` suits heartbeats that come by way of others, `normal` a cluster of at most `gossip_fanout` + 1, where all come straight.
    phi_model: PhiModel as PhiModel = "exponential", from "Cassandra's; `normal` is that of Hayashibara et al. 2004";
    /// With `detector = phi`: intervals remembered of each member, 4 bytes each, taken as they come.
    phi_window: usize as Count = 1000, in 8 to 100000, unit "samples", from "Hayashibara et al. 2004 §V; Akka and Cassandra, too";
    /// With `detector = phi`: the interval that is assumed until there are samples, so that somebody who is only told of dies as well. 0: twice `probe_interval`.
    phi_first_interval: Duration as Time = "0", in "0" to "1h", from "chosen by feel: Akka has 1 s, chitchat 5 s, both with heartbeats each second", live;
    /// With `detector = phi`: the deviation of intervals is never taken to be less, however regular they were.
    phi_min_deviation: Duration as Time = "100ms" / "500ms" / "50ms", in "0" to "1m", from "Akka and Hazelcast (lan)", live;
    /// With `detector = phi`: a longer interval counts as one of this length, so that one outage does not make the detector patient for long. 0: ten times `probe_interval`.
    phi_max_interval: Duration as Time = "0", in "0" to "1h", from "chitchat's max_interval, which is 10 s", live;
    /// A member that dies again and again by the fault of its own link stays away: each such death weighs half after this time. `0` lets it come and go. See docs/FAILURE_DETECTION.md.
    flap_half_life: Duration as Time = "1m" / "2m" / "30s", in "0" to "1h", from "RFC 2439 §4.2, which has 15 min for routes; so that one death costs nothing and two in a minute do", live;
    /// A driver that runs later than this counts the loss as its own fault: peers get the time back.
    stall_threshold: Duration as Time = "50ms", in "1ms" to "1m", from "chosen by feel: above a busy machine's usual lateness, at most `probe_timeout_min`";
    /// A member that was not scheduled for half a second or more says so, and its suspicions last for so many times its longest stall of the last minutes, at least. 0: no longer than others. See docs/FAILURE_DETECTION.md.
    stall_patience: Milli as Ratio = "2.0", in "0" to "10.0", from "ours: stalls of one machine differ by less than that most of the time", live;
}

group "Gossip" {
    /// So often news that still has sends left goes out.
    gossip_interval: Duration as Time = "100ms" / "300ms" / "50ms", in "1ms" to "1m", from "swept: docs/TUNING.md; about half of memberlist's 200ms, 500ms and 100ms", live;
    /// Where rounds of gossip, of news and with `broadcast = rumor` of messages, come late because this node is busy, they come less often: so much apart at most. Below `gossip_interval`, as `0` is, they never do.
    gossip_interval_max: Duration as Time = "0", in "0" to "10m", from "departure from paularlott/gossip, which allows four times its interval: a round is a few packets here, and docs/TUNING.md says what it saves", live;
    /// News heard for the first time leaves within this time, and at most one such flush happens in it.
    gossip_flush: Duration as Time = "10ms" / "20ms" / "5ms", in "0" to "1s", from "chosen by feel: enough to gather a burst, too little to be noticed", live;
    /// Members that each flush and each interval send to.
    gossip_fanout: usize as Count = 3, in 1 to 16, unit "members", from "swept: docs/TUNING.md; memberlist's LAN profile", live;
    /// What gossip may send in a second, all peers together. Probes do not count.
    gossip_budget: usize as Size = "256KiB", in "16KiB" to "1GiB", unit "bytes/s", from "chosen by feel: about 180 full datagrams, far above what a calm cluster sends", live;
    /// The dead are still told the news for so long, so that one who lives can refute.
    gossip_to_dead: Duration as Time = "30s" / "1m" / "15s", in "0" to "1h", from "memberlist's profiles (GossipToTheDeadTime)", live;
    /// λ: one member sends a piece of news λ · ⌈log10(n + 1)⌉ times.
    retransmit_mult: usize as Count = 4 / 6 / 4, in 1 to 64, from "swept: docs/TUNING.md; lan: memberlist's LAN profile; SWIM §5 has 3, with the natural logarithm";
    /// Peers that must know of a leave before it counts as told.
    leave_fanout: usize as Count = 3, in 1 to 16, unit "members", from "chosen by feel: as `gossip_fanout`";
}

group "Synchronisation" {
    /// Fingerprints of the whole table are compared with some member at least so often.
    sync_interval: Duration as Time = "30s" / "1m" / "15s", in "100ms" to "1h", from "memberlist's profiles (PushPullInterval)", live;
    /// Synchronises as soon as a fingerprint that came with a probe differs.
    sync_on_mismatch: bool as Bool = true, from "ours: a difference costs one round trip where memberlist waits for its interval", live;
    /// Datagrams that one answer may fill; what is left waits for the next round.
    sync_packets: usize as Count = 8, in 1 to 256, unit "datagrams", from "chosen by feel: some 11 KiB, far below a usual receive buffer", live;
}

group "Broadcasts" {
    /// `tree`: along a tree that they find, each member sent each of them once, at once. `rumor`: each member tells what is new to it to some others by lot, a few times. Members may differ. See docs/MESSAGING.md.
    broadcast: Broadcast as Broadcast = "tree", from "Plumtree (Leitão et al., SRDS 2007): a copy for each member; memberlist and gossiper have rumors";
    /// With `broadcast = rumor`: members that one round tells, by lot.
    rumor_fanout: usize as Count = 3, in 1 to 16, unit "members", from "memberlist's GossipNodes (lan); gossiper's fanout", live;
    /// With `broadcast = rumor`: λ: one member tells a message λ · ⌈log10(n + 1)⌉ times.
    rumor_mult: usize as Count = 4, in 1 to 64, from "memberlist's RetransmitMult (lan)", live;
    /// With `broadcast = rumor`: what one member is told in one round. What there is no room for waits for the next, those told least first.
    rumor_batch: usize as Size = "16KiB", in "1KiB" to "1MiB", from "chosen by feel: a dozen datagrams, so that several of them fit in a usual receive buffer; memberlist sends one", live;
    /// Neighbours to whom a member passes broadcasts on. With so many others, or fewer, all are.
    active_view: usize as Count = 5, in 3 to 16, unit "members", from "HyParView §5.1";
    /// Members that are kept in mind to take a lost neighbour's place.
    passive_view: usize as Count = 30, in 0 to 1024, unit "members", from "HyParView §5.1";
    /// So often, once something was broadcast, neighbours exchange a part of whom they know.
    shuffle_interval: Duration as Time = "30s" / "1m" / "15s", in "100ms" to "1h", from "chosen by feel: as `sync_interval`; HyParView leaves it open", live;
    /// The largest broadcast, its topic included. A larger one is refused.
    max_broadcast: usize as Size = "256KiB", in "1KiB" to "512KiB", from "chosen by feel: it goes whole, and half a MiB delays what follows it by 40 ms on a line of 100 Mbit/s";
    /// What a member keeps of the broadcasts that it heard, for those who missed some. When it is full, the oldest go.
    broadcast_window: usize as Size = "16MiB", in "64KiB" to "4GiB", from "chosen by feel: half a second of a full line of 1 Gbit/s, and much longer of anything usual", live;
    /// For so long at most they are kept.
    broadcast_keep: Duration as Time = "5m", in "1s" to "24h", from "chosen by feel: longer than most partitions; iroh-gossip has 30 s", live;
    /// Where the application validates broadcasts: what has no verdict after this time is offered to others, and pushed on to nobody.
    validation_timeout: Duration as Time = "1s", in "1ms" to "1h", from "chosen by feel: most handlers take a thousandth of it", live;
    /// Broadcasts that may wait for a verdict, each counted with 64 bytes more than it has. What comes beyond it is dropped, and asked for later.
    validation_bytes: usize as Size = "4MiB", in "64KiB" to "1GiB", unit "", from "chosen by feel: sixteen of the largest broadcasts";
    /// Members whose broadcasts are told apart. What was heard of those that are gone is remembered as long as there is room; where there is none, those of others are dropped and counted.
    max_origins: usize as Count = 65536, in 1 to 1048576, unit "members", from "chosen: as `max_members`";
}

group "Memory of the gone" {
    /// A dead member is listed for so long; then its address moves to the remembered list.
    forget_dead: Duration as Time = "1h", in "1s" to "720h", from "chosen by feel; Serf's ReconnectTimeout and foca have 24 h", live;
    /// A member that left is listed for so long.
    forget_left: Duration as Time = "1h", in "1s" to "720h", from "chosen by feel; Serf's TombstoneTimeout has 24 h", live;
    /// Addresses of forgotten members that are still tried now and then. When full, the oldest goes.
    max_remembered: usize as Count = 1024, in 0 to 65536, unit "addresses", from "chosen by feel";
}

group "Metadata" {
    /// All keys and values of this node together.
    meta_max: usize as Size = "64KiB", in "0" to "64KiB", from "departure from memberlist's 512 bytes, which users found too small (memberlist#191)";
    /// Up to this size metadata travels with the news of its member; larger metadata is fetched.
    meta_inline: usize as Size = "256B", in "0" to "4KiB", from "chosen by feel: several members still fit in a datagram";
}

group "Messages" {
    /// Largest message, without its topic. What is larger is refused where it is sent.
    max_message: usize as Size = "4MiB", in "1KiB" to "1GiB", from "chosen by feel: gRPC's default, too";
    /// What may wait for one member's acknowledgement, in each of the two lanes; what comes after is refused with E_BUSY. An empty queue takes any message.
    send_queue: usize as Size = "8MiB", in "64KiB" to "4GiB", from "chosen by feel: two of the largest messages", live;
    /// What may be on its way to one member in each lane before it is acknowledged.
    lane_window: usize as Size = "256KiB" / "1MiB" / "256KiB", in "64KiB" to "16MiB", from "chosen: a gigabyte a second at 250 us of round trip; wan: 20 MB a second at 50 ms";
    /// Messages that may wait for the application, in bytes. Beyond it members are not given room to send more, and best-effort messages drop their oldest.
    inbox_bytes: usize as Size = "16MiB", in "64KiB" to "4GiB", from "chosen by feel: four of the largest messages";
    /// What of one byte stream may have come and not been read; the other side is stopped there. Each part weighs 64 bytes besides its own.
    stream_window: usize as Size = "1MiB" / "4MiB" / "1MiB", in "64KiB" to "256MiB", from "chosen: four times `lane_window`, so that a reader that is away for a moment stops nobody; wan: 80 MB a second at 50 ms", live;
    /// Byte streams open at a time, with all members together. A further one is refused with E_LIMIT.
    max_streams: usize as Count = 1024, in 1 to 1048576, unit "streams", from "chosen by feel: a gigabyte at most, if nobody reads", live;
    /// The same with one member.
    max_member_streams: usize as Count = 64, in 1 to 1048576, unit "streams", from "chosen by feel: one that opens and does not stop leaves room for others", live;
    /// Requests without an answer yet, ours to all members together.
    max_requests: usize as Count = 65536, in 1 to 16777216, unit "requests", from "chosen by feel: beyond what one process waits for";
    /// Questions to many that gather answers at once, ours. Each keeps who was asked and who has answered.
    max_queries: usize as Count = 64, in 1 to 65536, unit "questions", from "chosen by feel: with 10,000 members some 50 MB at most";
    /// Largest answer to a question to many: larger ones are refused where they are given, and dropped where they arrive.
    query_answer_max: usize as Size = "64KiB", in "0" to "4MiB", from "departure from Serf's 1,024 bytes, which users found too small (serf#267): ours do not need to fit in a datagram";
    /// Where the asker does not say how long, answers are gathered for `gossip_interval` times this times ⌈log10(n + 1)⌉.
    query_timeout_mult: usize as Count = 16, in 1 to 1024, from "Serf's QueryTimeoutMult";
}

group "Limits and resources" {
    /// Largest datagram with its envelope. What is larger goes by stream.
    max_datagram: usize as Size = "1400B" / "1200B" / "1400B", in "576B" to "8900B", from "memberlist's UDPBufferSize; wan: what RFC 9000 §14 lets every path carry";
    /// Members that the table holds; further ones are ignored and counted.
    max_members: usize as Count = 65536, in 2 to 1048576, unit "members", from "chosen by feel: beyond any cluster that one gossip group should have";
    /// Sessions of senders that are no members. When full, the oldest goes.
    max_sessions: usize as Count = 4096, in 16 to 1048576, unit "sessions", from "chosen by feel: half a MiB at most";
    /// Session keys derived for strangers in a second; a flood beyond it is dropped and counted.
    derive_rate: usize as Count = 1000, in 1 to 1000000, unit "per second", from "chosen by feel: a small share of one core";
    /// Open links by stream. When full, the least recently used one is closed.
    max_links: usize as Count = 64, in 1 to 65536, unit "links", from "chosen by feel: far below the usual limit of 1,024 descriptors";
    /// What may wait to be sent on one link; what comes after is dropped and counted.
    link_queue: usize as Size = "1MiB" / "4MiB" / "1MiB", in "128KiB" to "1GiB", from "chosen: four times `lane_window`";
    /// An unused link is closed after this.
    link_idle: Duration as Time = "1m", in "1s" to "24h", from "chosen by feel";
    /// Connecting and shaking hands may take so long together.
    link_timeout: Duration as Time = "5s" / "10s" / "2s", in "10ms" to "10m", from "chosen by feel: memberlist's TCPTimeout is 10s, 30s and 1s";
    /// Size asked for the UDP socket's receive buffer; Linux gives at most net.core.rmem_max. What it has no room for is lost
    /// (`receive_overflow`). 0 leaves the system's.
    recv_buffer: usize as Size = "2MiB", in "0" to "1GiB", from "memberlist: what it asks for";
    /// `thread` calls handlers on a thread of the runtime's; `manual` waits for the application to dispatch.
    dispatch: Dispatch as Dispatch = "thread", from "chosen: works without an event loop";
    /// Events that may wait for the application. Beyond it membership events coalesce, and others are dropped and reported.
    inbox_capacity: usize as Count = 8192, in 16 to 1048576, unit "items", from "chosen by feel";
}
}
