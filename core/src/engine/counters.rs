//! What was counted. Plain numbers, read as a whole.

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters { $(#[doc = $doc] pub $name: u64,)* }

        impl Counters {
            /// (name, meaning, value of) each counter.
            #[allow(clippy::type_complexity)] // A table of getters.
            pub const ALL: &'static [(&'static str, &'static str, fn(&Counters) -> u64)] =
                &[$((stringify!($name), $doc, |c| c.$name),)*];
        }
    };
}

counters! {
    packets_in: "packets opened and handed to the engine",
    malformed: "packets dropped whole because a frame in them was malformed",
    unexpected: "frames dropped because their sender may not send them",
    unknown_sender: "pings and heartbeats from runs that are no members (yet, or any more)",
    acks: "answers to our pings",
    acks_late: "answers that came after their probe had ended",
    acks_by_stream: "probes that were answered by stream only: datagrams are lost on that path",
    nacks: "relays that could not reach the target either",
    silent: "probes that ended without any answer; with detector = phi, silences that reached phi_threshold",
    suspicions: "suspicions begun, ours and others'",
    refutations: "accusations against us that we refuted",
    held_back: "accusations against us that we did not refute, because our own link fails again and again (`flap_half_life`)",
    deaths: "members declared dead, by us or others",
    accused_back: "stale news about the dead or left that was answered with the accusation",
    answers_cut: "questions not answered because their packet had asked for too much already",
    state_refused: "metadata of others refused because it exceeds 64 KiB or 1,024 keys",
    joins_accepted: "joiners that we let in",
    joins_refused: "joiners that we refused: version, name in use, or another `membership`",
    cookies_bad: "JOIN frames with a wrong or expired cookie",
    exchanges: "anti-entropy exchanges begun",
    table_pulls: "parts of the table sent to newcomers",
    state_pulls: "pulls of metadata answered",
    rumors_waiting: "rumors that are still being told",
    gossip_over_budget: "gossip packets not sent because gossip_budget was spent",
    messages_sent: "messages to single members that were sent or queued",
    messages_received: "messages handed to the application",
    messages_refused: "messages and replies refused with E_BUSY because send_queue, or to ourselves inbox_bytes, was full",
    requests: "requests that were sent or queued",
    requests_timed_out: "requests that had no answer in time",
    replies_late: "replies to requests that had ended",
    queries: "questions to many that were asked",
    queries_timed_out: "questions to many whose time was over before all had answered",
    queries_in: "questions to many that were for us, and handed to the application",
    queries_unmatched: "questions to many that were for others, by name or tag",
    queries_late: "questions to many that came when their time was over",
    queries_refused: "questions to many answered with E_BUSY because inbox_bytes was full",
    answers_in: "answers to our questions to many",
    answer_copies: "answers and acknowledgements that had come by another way",
    answers_unasked: "answers and acknowledgements dropped: that question has ended, or was never asked, or not of that member",
    answers_refused: "answers to our questions to many dropped because they are larger than query_answer_max",
    answers_unsent: "answers, acknowledgements and copies of them not sent because send_queue was full",
    answers_relayed: "answers and acknowledgements of others that we passed on",
    relays_refused: "answers that we were to pass on and did not: their receiver is not there, or they are too large or not their sender's",
    items_seen: "parts of messages that came again",
    items_refused: "parts of messages dropped because they came ahead of the room that was given",
    outbox_dropped: "packets not sent because one turn wanted to send more than the outbox holds",
    members_full: "members not listed because max_members was reached",
    probed_first: "members told of by a node long out of touch: called before they are listed",
    stalls: "times that the driver was late by more than stall_threshold",
    health: "local health: 0 is healthy (Lifeguard)",
    islands: "with membership = partial: calls that met a part of the cluster that we were not connected with",
    neighbours: "neighbours in the overlay, now",
    neighbours_lost: "neighbours that died, left, or were exchanged for others",
    broadcasts: "broadcasts of our own",
    broadcasts_busy: "broadcasts of our own that were refused because too few neighbours had confirmed those before (E_BUSY)",
    broadcasts_in: "broadcasts of others that were heard",
    broadcast_copies: "broadcasts that came once more",
    broadcast_pushes: "broadcasts handed to a neighbour, ours and others'",
    broadcasts_repaired: "broadcasts that came because we missed them",
    broadcast_answers: "broadcasts sent to who had missed them",
    broadcasts_lost: "broadcasts missed that nobody has any more: see the event GAP",
    broadcasts_before: "broadcasts, or answers, from before this node was there",
    broadcasts_stale: "broadcasts refused because they are older than twice broadcast_keep",
    broadcasts_unlisted: "broadcasts dropped because the record of their origin did not come",
    broadcasts_refused: "broadcasts dropped, to be asked for later: max_origins, or a sequence with too many gaps",
    broadcast_window_bytes: "broadcasts kept for those who missed them, now, in bytes",
    grafts: "questions for missing broadcasts",
    prunes: "links taken out of a tree",
    shortcuts: "links of a tree exchanged for shorter ones",
    gone: "answers that something is kept no longer",
    vectors: "vectors sent: how far we have heard each origin",
    broadcasts_held: "ordered broadcasts that had to wait for one before them",
    broadcast_origins: "members whose broadcasts are told apart, now, those that are gone included",
    origins_forgotten: "members long gone whose broadcasts are told apart no more, because max_origins was reached",
}
