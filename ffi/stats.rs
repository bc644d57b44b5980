//! Counters: all at once as a struct, or one by name. Core's table is the only list; a test holds the struct to it.

use std::ffi::{c_char, c_int};
use std::sync::LazyLock;

use bruit_core::runtime::Stats;

use crate::convert::{Out, c_string, invalid, table, text};
use crate::error::{guard, guard_ptr};
use crate::node::{bruit_node, node_of};

/// All counters of a node. They begin at 0 and never go down, but for four that say how it is now: rumors_waiting,
/// health, links and sessions.
#[repr(C)]
#[derive(Default)]
pub struct bruit_stats {
    /** To be set to sizeof(bruit_stats) by the caller; receives how much of the struct the library filled. */
    pub size: u32,
    /** 0. */
    pub reserved: u32,
    /** packets opened and handed to the engine */
    pub packets_in: u64,
    /** packets dropped whole because a frame in them was malformed */
    pub malformed: u64,
    /** frames dropped because their sender may not send them */
    pub unexpected: u64,
    /** pings and heartbeats from runs that are no members (yet, or any more) */
    pub unknown_sender: u64,
    /** answers to our pings */
    pub acks: u64,
    /** answers that came after their probe had ended */
    pub acks_late: u64,
    /** probes that were answered by stream only: datagrams are lost on that path */
    pub acks_by_stream: u64,
    /** relays that could not reach the target either */
    pub nacks: u64,
    /** probes that ended without any answer; with detector = phi, silences that reached phi_threshold */
    pub silent: u64,
    /** suspicions begun, ours and others' */
    pub suspicions: u64,
    /** accusations against us that we refuted */
    pub refutations: u64,
    /** members declared dead, by us or others */
    pub deaths: u64,
    /** stale news about the dead or left that was answered with the accusation */
    pub accused_back: u64,
    /** questions not answered because their packet had asked for too much already */
    pub answers_cut: u64,
    /** metadata of others refused because it exceeds 64 KiB or 1,024 keys */
    pub state_refused: u64,
    /** joiners that we let in */
    pub joins_accepted: u64,
    /** joiners that we refused: version, name in use, or another `membership` */
    pub joins_refused: u64,
    /** JOIN frames with a wrong or expired cookie */
    pub cookies_bad: u64,
    /** anti-entropy exchanges begun */
    pub exchanges: u64,
    /** parts of the table sent to newcomers */
    pub table_pulls: u64,
    /** pulls of metadata answered */
    pub state_pulls: u64,
    /** rumors that are still being told */
    pub rumors_waiting: u64,
    /** gossip packets not sent because gossip_budget was spent */
    pub gossip_over_budget: u64,
    /** packets not sent because one turn wanted to send more than the outbox holds */
    pub outbox_dropped: u64,
    /** members not listed because max_members was reached */
    pub members_full: u64,
    /** members told of by a node long out of touch: called before they are listed */
    pub probed_first: u64,
    /** times that the driver was late by more than stall_threshold */
    pub stalls: u64,
    /** local health: 0 is healthy (Lifeguard) */
    pub health: u64,
    /** datagrams received */
    pub datagrams_in: u64,
    /** bytes in datagrams received */
    pub datagram_bytes_in: u64,
    /** datagrams handed to the kernel */
    pub datagrams_out: u64,
    /** bytes in datagrams handed to the kernel */
    pub datagram_bytes_out: u64,
    /** datagrams that the kernel did not take */
    pub datagrams_failed: u64,
    /** datagrams received that are larger than any of ours */
    pub datagrams_too_large: u64,
    /** failed receive calls */
    pub receive_errors: u64,
    /** datagrams that the kernel dropped because the receive buffer was full */
    pub receive_overflow: u64,
    /** ICMP messages that nobody listens at an address */
    pub unreachable: u64,
    /** other ICMP messages about datagrams that we sent */
    pub path_errors: u64,
    /** stream records received */
    pub records_in: u64,
    /** bytes received on links */
    pub record_bytes_in: u64,
    /** stream records written to links */
    pub records_out: u64,
    /** bytes written to links */
    pub record_bytes_out: u64,
    /** stream records dropped because a queue was full, or a link could not be made or ended */
    pub records_dropped: u64,
    /** links open now */
    pub links: u64,
    /** links that we opened */
    pub links_dialed: u64,
    /** links that peers opened */
    pub links_accepted: u64,
    /** connections that were refused or could not be made */
    pub links_refused: u64,
    /** links closed because no connection or valid record came in time */
    pub links_timed_out: u64,
    /** links closed because max_links was reached */
    pub links_evicted: u64,
    /** links closed by errors, ours or the peer's */
    pub links_broken: u64,
    /** connections that could not be accepted: no descriptors, no memory */
    pub accept_errors: u64,
    /** connections closed at once because too many unproven ones were open */
    pub strangers_refused: u64,
    /** senders whose packets can be opened without a new key derivation, now */
    pub sessions: u64,
    /** look-ups of host names that failed */
    pub names_unresolved: u64,
    /** timers that fired late by more than stall_threshold */
    pub late_ticks: u64,
    /** events queued for the application */
    pub events: u64,
    /** membership events folded into later ones because the application was behind */
    pub events_coalesced: u64,
    /** events dropped because the inbox or a queue was full */
    pub events_dropped: u64,
    /** panics of the application's handlers */
    pub handler_panics: u64,
    /** log lines dropped because too many waited */
    pub log_dropped: u64,
    /** packets refused by the envelope, for all reasons together */
    pub packets_rejected: u64,
    /** packets refused: shorter than an empty envelope */
    pub rejected_short: u64,
    /** packets refused: another version of the envelope, or no envelope at all */
    pub rejected_version: u64,
    /** packets refused: a flag that this version does not know */
    pub rejected_flags: u64,
    /** packets refused: the sender's run id is 0 */
    pub rejected_session: u64,
    /** packets refused: sent by this very run */
    pub rejected_loopback: u64,
    /** packets refused: sealed where no key is configured, or in clear where one is */
    pub rejected_mode: u64,
    /** packets refused: a key that is not in the keyring, or another cluster's label */
    pub rejected_key: u64,
    /** packets refused: a counter seen before, or older than the window */
    pub rejected_replay: u64,
    /** packets refused: an unknown sender, above derive_rate a second */
    pub rejected_derive_limit: u64,
    /** packets refused: the tag is wrong: damaged, forged, replayed from elsewhere, or for another run */
    pub rejected_tag: u64,
    /** packets refused: the checksum is wrong: damaged, another cluster's, or for another run */
    pub rejected_checksum: u64,
    /** accusations against us that we did not refute, because our own link fails again and again (`flap_half_life`) */
    pub held_back: u64,
    /** messages to single members that were sent or queued */
    pub messages_sent: u64,
    /** messages handed to the application */
    pub messages_received: u64,
    /** messages and replies refused with E_BUSY because send_queue, or to ourselves inbox_bytes, was full */
    pub messages_refused: u64,
    /** requests that were sent or queued */
    pub requests: u64,
    /** requests that had no answer in time */
    pub requests_timed_out: u64,
    /** replies to requests that had ended */
    pub replies_late: u64,
    /** parts of messages that came again */
    pub items_seen: u64,
    /** parts of messages dropped because they came ahead of the room that was given */
    pub items_refused: u64,
    /** messages dropped because nobody listens to their topic */
    pub messages_unheard: u64,
    /** neighbours in the overlay, now */
    pub neighbours: u64,
    /** neighbours that died, left, or were exchanged for others */
    pub neighbours_lost: u64,
    /** broadcasts of our own */
    pub broadcasts: u64,
    /** broadcasts of our own that were refused because a neighbour had yet to confirm those before (E_BUSY) */
    pub broadcasts_busy: u64,
    /** broadcasts of others that were heard */
    pub broadcasts_in: u64,
    /** broadcasts that came once more */
    pub broadcast_copies: u64,
    /** broadcasts handed to a neighbour, ours and others' */
    pub broadcast_pushes: u64,
    /** broadcasts that came because we missed them */
    pub broadcasts_repaired: u64,
    /** broadcasts sent to who had missed them */
    pub broadcast_answers: u64,
    /** broadcasts missed that nobody has any more: see the event GAP */
    pub broadcasts_lost: u64,
    /** broadcasts, or answers, from before this node was there */
    pub broadcasts_before: u64,
    /** broadcasts refused because they are older than twice broadcast_keep */
    pub broadcasts_stale: u64,
    /** broadcasts dropped because the record of their origin did not come */
    pub broadcasts_unlisted: u64,
    /** broadcasts dropped, to be asked for later: max_origins, or a sequence with too many gaps */
    pub broadcasts_refused: u64,
    /** broadcasts kept for those who missed them, now, in bytes */
    pub broadcast_window_bytes: u64,
    /** questions for missing broadcasts */
    pub grafts: u64,
    /** links taken out of a tree */
    pub prunes: u64,
    /** links of a tree exchanged for shorter ones */
    pub shortcuts: u64,
    /** answers that something is kept no longer */
    pub gone: u64,
    /** vectors sent: how far we have heard each origin */
    pub vectors: u64,
    /** members whose broadcasts are told apart, now, those that are gone included */
    pub broadcast_origins: u64,
    /** members long gone whose broadcasts are told apart no more, because max_origins was reached */
    pub origins_forgotten: u64,
    /** ordered broadcasts that had to wait for one before them */
    pub broadcasts_held: u64,
    /** questions to many that were asked */
    pub queries: u64,
    /** questions to many whose time was over before all had answered */
    pub queries_timed_out: u64,
    /** questions to many that were for us, and handed to the application */
    pub queries_in: u64,
    /** questions to many that were for others, by name or tag */
    pub queries_unmatched: u64,
    /** questions to many that came when their time was over */
    pub queries_late: u64,
    /** questions to many answered with E_BUSY because inbox_bytes was full */
    pub queries_refused: u64,
    /** answers to our questions to many */
    pub answers_in: u64,
    /** answers and acknowledgements that had come by another way */
    pub answer_copies: u64,
    /** answers and acknowledgements dropped: that question has ended, or was never asked, or not of that member */
    pub answers_unasked: u64,
    /** answers to our questions to many dropped because they are larger than query_answer_max */
    pub answers_refused: u64,
    /** answers, acknowledgements and copies of them not sent because send_queue was full */
    pub answers_unsent: u64,
    /** answers and acknowledgements of others that we passed on */
    pub answers_relayed: u64,
    /** answers that we were to pass on and did not: their receiver is not there, or they are too large or not their sender's */
    pub relays_refused: u64,
    /** with membership = partial: calls that met a part of the cluster that we were not connected with */
    pub islands: u64,
    /** byte streams that are open, now */
    pub streams: u64,
    /** byte streams that we opened */
    pub streams_opened: u64,
    /** byte streams that members opened to us */
    pub streams_accepted: u64,
    /** byte streams, ours and theirs, refused because max_streams or max_member_streams was reached */
    pub streams_refused: u64,
    /** byte streams that ended with all that both sides had to say */
    pub streams_done: u64,
    /** byte streams that the other side ended before its time, or does not know */
    pub streams_reset: u64,
    /** byte streams that ended because the member was dead or had left */
    pub streams_unreachable: u64,
    /** words about byte streams that had ended here: they were answered with their end */
    pub streams_unknown: u64,
    /** byte streams that we ended because something of them was missing, or more than there was room for */
    pub streams_broken: u64,
    /** bytes of byte streams that were sent, compressed where they are */
    pub stream_bytes_sent: u64,
    /** bytes of byte streams that came */
    pub stream_bytes_received: u64,
    /** bytes of byte streams that wait for members' acknowledgement, now */
    pub stream_bytes_waiting: u64,
    /** byte streams of members that were refused because nobody listens to their topic */
    pub streams_unheard: u64,
    /** bytes of byte streams that have come and were not read, now */
    pub stream_bytes_unread: u64,
    /** bytes of broadcasts that wait for the application, now */
    pub broadcasts_waiting: u64,
    /** broadcasts that the application was too slow for */
    pub broadcasts_overrun: u64,
    /** broadcasts that the application was asked to judge */
    pub validations: u64,
    /** broadcasts without a verdict within validation_timeout: offered, and not pushed on */
    pub validations_late: u64,
    /** broadcasts that the application rejected */
    pub validations_rejected: u64,
    /** with broadcast = rumor: rounds in which some members were told */
    pub rumor_rounds: u64,
    /** times that a neighbour was waited for no longer, because it was behind with broadcasts for too long */
    pub neighbours_slow: u64,
    /** stalls that others were told of, to be patient (`stall_patience`) */
    pub stalls_told: u64,
}

/// One counter.
#[repr(C)]
pub struct bruit_stat_desc {
    /** sizeof(bruit_stat_desc). An element of an array: this struct never grows. */
    pub size: u32,
    /** 0. */
    pub reserved: u32,
    /** Its name, for bruit_node_stat(). */
    pub name: *const c_char,
    /** What it counts. */
    pub doc: *const c_char,
}

/// Reads all counters.
///
/// \param out its `size` has to be set; fields beyond what the library knows are left alone.
/// \return BRUIT_OK; BRUIT_E_INVALID: `size` is too small for anything.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_stats(node: *const bruit_node, out: *mut bruit_stats) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        if out.is_null() {
            return Err(invalid("out is NULL"));
        }
        // SAFETY: not NULL, and the caller set the size.
        let size = unsafe { (&raw const (*out).size).read() } as usize;
        if size < size_of::<u64>() {
            return Err(invalid(format!("out->size is {size}: expected sizeof(bruit_stats)")));
        }
        let stats = node.stats()?;
        // The caller's struct may be that of an older or a later version.
        let fields = FIELDS.len().min(size / size_of::<u64>() - 1);
        let header = [(1 + fields) as u32 * size_of::<u64>() as u32, 0];
        // SAFETY: the caller's struct has `size` bytes: eight, then 64-bit fields in the order of FIELDS.
        unsafe {
            out.cast::<[u32; 2]>().write(header);
            for (n, name) in FIELDS[..fields].iter().enumerate() {
                out.cast::<u64>().add(1 + n).write(stats.get(name).unwrap_or(0));
            }
        }
        Ok(0)
    })
}

/// All counters that bruit_node_stat() knows. The table is never freed.
///
/// \param count receives the number of elements; required.
/// \return the table, or NULL where `count` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_stat_descs(count: *mut usize) -> *const bruit_stat_desc {
    // SAFETY: NULL or valid, as the caller promises.
    guard_ptr(|| unsafe { table(&DESCS.0, count) })
}

/// Reads one counter by its name.
///
/// \param value receives the count; required.
/// \return BRUIT_OK; BRUIT_E_NOT_FOUND: no such counter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bruit_node_stat(node: *const bruit_node, name: *const c_char, value: *mut u64) -> c_int {
    guard(|| {
        let node = node_of(node)?;
        // SAFETY: NULL or a text, NULL or valid, as the caller promises.
        let (name, value) = unsafe { (text("name", name)?, Out::new("value", value)?) };
        value.put(node.stat(name)?);
        Ok(0)
    })
}

/// The fields of `bruit_stats` after its first eight bytes, in order.
const FIELDS: &[&str] = &[
    "packets_in",
    "malformed",
    "unexpected",
    "unknown_sender",
    "acks",
    "acks_late",
    "acks_by_stream",
    "nacks",
    "silent",
    "suspicions",
    "refutations",
    "deaths",
    "accused_back",
    "answers_cut",
    "state_refused",
    "joins_accepted",
    "joins_refused",
    "cookies_bad",
    "exchanges",
    "table_pulls",
    "state_pulls",
    "rumors_waiting",
    "gossip_over_budget",
    "outbox_dropped",
    "members_full",
    "probed_first",
    "stalls",
    "health",
    "datagrams_in",
    "datagram_bytes_in",
    "datagrams_out",
    "datagram_bytes_out",
    "datagrams_failed",
    "datagrams_too_large",
    "receive_errors",
    "receive_overflow",
    "unreachable",
    "path_errors",
    "records_in",
    "record_bytes_in",
    "records_out",
    "record_bytes_out",
    "records_dropped",
    "links",
    "links_dialed",
    "links_accepted",
    "links_refused",
    "links_timed_out",
    "links_evicted",
    "links_broken",
    "accept_errors",
    "strangers_refused",
    "sessions",
    "names_unresolved",
    "late_ticks",
    "events",
    "events_coalesced",
    "events_dropped",
    "handler_panics",
    "log_dropped",
    "packets_rejected",
    "rejected_short",
    "rejected_version",
    "rejected_flags",
    "rejected_session",
    "rejected_loopback",
    "rejected_mode",
    "rejected_key",
    "rejected_replay",
    "rejected_derive_limit",
    "rejected_tag",
    "rejected_checksum",
    "held_back",
    "messages_sent",
    "messages_received",
    "messages_refused",
    "requests",
    "requests_timed_out",
    "replies_late",
    "items_seen",
    "items_refused",
    "messages_unheard",
    "neighbours",
    "neighbours_lost",
    "broadcasts",
    "broadcasts_busy",
    "broadcasts_in",
    "broadcast_copies",
    "broadcast_pushes",
    "broadcasts_repaired",
    "broadcast_answers",
    "broadcasts_lost",
    "broadcasts_before",
    "broadcasts_stale",
    "broadcasts_unlisted",
    "broadcasts_refused",
    "broadcast_window_bytes",
    "grafts",
    "prunes",
    "shortcuts",
    "gone",
    "vectors",
    "broadcast_origins",
    "origins_forgotten",
    "broadcasts_held",
    "queries",
    "queries_timed_out",
    "queries_in",
    "queries_unmatched",
    "queries_late",
    "queries_refused",
    "answers_in",
    "answer_copies",
    "answers_unasked",
    "answers_refused",
    "answers_unsent",
    "answers_relayed",
    "relays_refused",
    "islands",
    "streams",
    "streams_opened",
    "streams_accepted",
    "streams_refused",
    "streams_done",
    "streams_reset",
    "streams_unreachable",
    "streams_unknown",
    "streams_broken",
    "stream_bytes_sent",
    "stream_bytes_received",
    "stream_bytes_waiting",
    "streams_unheard",
    "stream_bytes_unread",
    "broadcasts_waiting",
    "broadcasts_overrun",
    "validations",
    "validations_late",
    "validations_rejected",
    "rumor_rounds",
    "neighbours_slow",
    "stalls_told",
];

const _: () = assert!(size_of::<bruit_stats>() == size_of::<u64>() * (1 + FIELDS.len()));

struct Descs(Vec<bruit_stat_desc>);

// SAFETY: the pointers lead to text that is never changed or freed.
unsafe impl Send for Descs {}
// SAFETY: as above.
unsafe impl Sync for Descs {}

static DESCS: LazyLock<Descs> = LazyLock::new(|| {
    let keep = |text: &str| c_string(text).into_raw().cast_const();
    let size = size_of::<bruit_stat_desc>() as u32;
    let desc = |name, doc| bruit_stat_desc { size, reserved: 0, name: keep(name), doc: keep(doc) };
    Descs(Stats::all().iter().map(|stat| desc(stat.name, stat.doc)).collect())
});

#[cfg(test)]
mod tests {
    use super::*;

    /// Core's table grows anywhere in it, the struct at its end only.
    #[test]
    fn the_struct_has_every_counter() {
        let known: Vec<&str> = Stats::all().iter().map(|stat| stat.name).collect();
        for name in FIELDS {
            assert!(known.contains(name), "core no longer counts {name}: keep the field, and it will be 0");
        }
        let missing = known.iter().filter(|name| !FIELDS.contains(name));
        let missing: Vec<_> = missing.collect();
        assert!(missing.is_empty(), "append these to FIELDS and to bruit_stats: {missing:?}");
    }

    /// The struct's declaration, which cbindgen has to see as it is, against FIELDS and core's descriptions.
    #[test]
    fn the_declaration_is_in_the_order_of_fields() {
        let mut expected = String::from("    /** 0. */\n    pub reserved: u32,\n");
        for name in FIELDS {
            let stat = Stats::all().iter().find(|stat| stat.name == *name);
            let doc = stat.map_or("No longer counted.", |stat| stat.doc);
            expected += &format!("    /** {doc} */\n    pub {name}: u64,\n");
        }
        let declared = format!("{expected}}}\n");
        assert!(include_str!("stats.rs").contains(&declared), "bruit_stats should end with\n{declared}");
    }
}
