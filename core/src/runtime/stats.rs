//! What a node has counted: the engine's counters and the runtime's, in one table.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::engine::Counters;
use crate::wire::envelope::Reject;

macro_rules! runtime_counters {
    ($($name:ident: $text:literal,)*) => {
        /// Counted by the runtime: sockets, links, the inbox.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct RuntimeCounters {
            $(#[doc = $text] pub $name: u64,)*
            /// Packets that the envelope refused, in the order of `Reject::ALL`.
            pub rejects: [u64; Reject::ALL.len()],
        }

        impl RuntimeCounters {
            #[allow(clippy::type_complexity)] // A table of getters.
            pub const ALL: &'static [(&'static str, &'static str, fn(&RuntimeCounters) -> u64)] =
                &[$((stringify!($name), $text, |c| c.$name)),*];
        }

        /// The same while they are being counted, by any thread.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub $name: AtomicU64,)*
            pub rejects: [AtomicU64; Reject::ALL.len()],
        }

        impl Tally {
            pub(crate) fn read(&self) -> RuntimeCounters {
                RuntimeCounters {
                    $($name: self.$name.load(Relaxed),)*
                    rejects: std::array::from_fn(|i| self.rejects[i].load(Relaxed)),
                }
            }
        }
    };
}

runtime_counters! {
    datagrams_in: "datagrams received",
    datagram_bytes_in: "bytes in datagrams received",
    datagrams_out: "datagrams handed to the kernel",
    datagram_bytes_out: "bytes in datagrams handed to the kernel",
    datagrams_failed: "datagrams that the kernel did not take",
    datagrams_too_large: "datagrams received that are larger than any of ours",
    receive_errors: "failed receive calls",
    receive_overflow: "datagrams that the kernel dropped because the receive buffer was full",
    unreachable: "ICMP messages that nobody listens at an address",
    path_errors: "other ICMP messages about datagrams that we sent",
    records_in: "stream records received",
    record_bytes_in: "bytes received on links",
    records_out: "stream records written to links",
    record_bytes_out: "bytes written to links",
    records_dropped: "stream records dropped because a queue was full, or a link could not be made or ended",
    links: "links open now",
    links_dialed: "links that we opened",
    links_accepted: "links that peers opened",
    links_refused: "connections that were refused or could not be made",
    links_timed_out: "links closed because no connection or valid record came in time",
    links_evicted: "links closed because max_links was reached",
    links_broken: "links closed by errors, ours or the peer's",
    accept_errors: "connections that could not be accepted: no descriptors, no memory",
    strangers_refused: "connections closed at once because too many unproven ones were open",
    sessions: "senders whose packets can be opened without a new key derivation, now",
    names_unresolved: "look-ups of host names that failed",
    late_ticks: "timers that fired late by more than stall_threshold",
    events: "events queued for the application",
    events_coalesced: "membership events folded into later ones because the application was behind",
    events_dropped: "events dropped because the inbox or a queue was full",
    messages_unheard: "messages dropped because nobody listens to their topic",
    streams_unheard: "byte streams of members that were refused because nobody listens to their topic",
    stream_bytes_unread: "bytes of byte streams that have come and were not read, now",
    handler_panics: "panics of the application's handlers",
    log_dropped: "log lines dropped because too many waited",
}

/// A copy of all counters of one node.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub engine: Counters,
    pub runtime: RuntimeCounters,
}

/// One counter: its name, what it counts, and how to read it.
#[derive(Clone, Copy, Debug)]
pub struct StatDesc {
    pub name: &'static str,
    pub doc: &'static str,
    source: Source,
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Engine(fn(&Counters) -> u64),
    Runtime(fn(&RuntimeCounters) -> u64),
    Reject(usize),
    Rejects,
}

impl StatDesc {
    pub fn get(&self, stats: &Stats) -> u64 {
        match self.source {
            Source::Engine(f) => f(&stats.engine),
            Source::Runtime(f) => f(&stats.runtime),
            Source::Reject(i) => stats.runtime.rejects[i],
            Source::Rejects => stats.runtime.rejects.iter().sum(),
        }
    }
}

impl Stats {
    /// Every counter, in a fixed order.
    pub fn all() -> &'static [StatDesc] {
        static ALL: OnceLock<Vec<StatDesc>> = OnceLock::new();
        ALL.get_or_init(|| {
            let engine = Counters::ALL.iter().map(|&(name, doc, f)| StatDesc { name, doc, source: Source::Engine(f) });
            let runtime =
                RuntimeCounters::ALL.iter().map(|&(name, doc, f)| StatDesc { name, doc, source: Source::Runtime(f) });
            let sum = StatDesc {
                name: "packets_rejected",
                doc: "packets refused by the envelope, for all reasons together",
                source: Source::Rejects,
            };
            // Made once, kept for ever.
            let rejects = Reject::ALL.iter().enumerate().map(|(i, reject)| StatDesc {
                name: String::leak(format!("rejected_{}", reject.name())),
                doc: String::leak(format!("packets refused: {}", reject.describe())),
                source: Source::Reject(i),
            });
            engine.chain(runtime).chain([sum]).chain(rejects).collect()
        })
    }

    pub fn get(&self, name: &str) -> Option<u64> {
        Stats::all().iter().find(|d| d.name == name).map(|d| d.get(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_a_name_of_its_own() {
        let mut names: Vec<_> = Stats::all().iter().map(|d| d.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Stats::all().len());
        assert_eq!(Stats::default().get("rejected_tag"), Some(0));
        assert_eq!(Stats::default().get("no such counter"), None);
    }
}
