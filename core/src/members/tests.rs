use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec;

use super::*;
use crate::id::{Epoch, NodeName, Version};
use crate::time::{Duration, Instant};
use crate::wire::frame::{Entries, Record};
use MemberState::{Alive, Dead, Left, Suspect};

fn run(id: u64) -> RunId {
    RunId::new(id).unwrap()
}

fn record_of(name: &str, id: u64) -> Record<'_> {
    Record {
        name,
        run: run(id),
        epoch: Epoch(1),
        incarnation: Incarnation(0),
        addr: "10.0.0.1:1".parse().unwrap(),
        protocol: 1,
        app_version: 0,
        version: Version(0),
        age: 0,
        state: Entries(&[]),
    }
}

fn newcomer(id: u64) -> Entry {
    let name = format!("n{id}");
    entry(&record_of(&name, id), NodeName::new(&name).unwrap(), Alive, Instant::ZERO)
}

fn table(max: usize) -> Members {
    Members::new(newcomer(1), (1, 2), max)
}

/// SWIM §4.2, row by row as the page above draws it: what is told at a lower, the same and a higher incarnation.
#[test]
fn the_ruling_is_the_table_on_the_page() {
    use Ruling::{Known, News, Stale};
    let rows = [
        (Alive, Alive, [Stale, Known, News]),
        (Alive, Suspect, [Stale, News, News]),
        (Alive, Dead, [Stale, News, News]),
        (Alive, Left, [News, News, News]),
        (Suspect, Alive, [Stale, Stale, News]),
        (Suspect, Suspect, [Stale, Known, News]),
        (Suspect, Dead, [Stale, News, News]),
        (Suspect, Left, [News, News, News]),
        (Dead, Alive, [Stale, Stale, News]),
        (Dead, Suspect, [Stale, Stale, Stale]),
        (Dead, Dead, [Stale, Known, News]),
        (Dead, Left, [News, News, News]),
        (Left, Alive, [Stale, Stale, Stale]),
        (Left, Suspect, [Stale, Stale, Stale]),
        (Left, Dead, [Stale, Stale, Stale]),
        (Left, Left, [Known, Known, Known]),
    ];
    for (known, told, rulings) in rows {
        for (told_at, expected) in [4, 5, 6].into_iter().zip(rulings) {
            let ruled = ruling((known, Incarnation(5)), (told, Incarnation(told_at)));
            assert_eq!(ruled, expected, "{known:?} 5, told {told:?} {told_at}");
        }
    }
}

/// A suspicion of somebody who was declared dead in an earlier incarnation is heard by some and not by others;
/// when it has ended, in whichever way, they agree again. Nothing else depends on the order.
#[test]
fn in_whatever_order_news_comes_all_agree_once_suspicions_have_ended() {
    let news: Vec<_> =
        [Alive, Suspect, Dead].into_iter().flat_map(|s| (0..3).map(move |i| (s, Incarnation(i)))).collect();
    let hear = |known, told| if ruling(known, told) == Ruling::News { told } else { known };
    let mut rng = Rng::new(1);
    for _ in 0..2_000 {
        let mut heard: Vec<_> = (0..6).map(|_| news[rng.index(news.len())]).collect();
        let one = heard.iter().fold((Alive, Incarnation(0)), |known, &told| hear(known, told));
        rng.shuffle(&mut heard);
        let other = heard.iter().fold((Alive, Incarnation(0)), |known, &told| hear(known, told));

        assert!(one == other || one.0 == Suspect || other.0 == Suspect, "{heard:?}: {one:?} {other:?}");
        let last = one.1.max(other.1);
        for end in [(Alive, Incarnation(last.0 + 1)), (Dead, last)] {
            assert_eq!(hear(one, end), hear(other, end), "{heard:?}");
        }
    }
}

#[test]
fn a_slot_that_was_given_away_is_not_found_by_its_old_tenants_peer() {
    let mut members = table(10);
    let old = members.insert(newcomer(2)).unwrap();
    members.remove(old).unwrap();
    let new = members.insert(newcomer(3)).unwrap();

    assert_eq!(old.slot, new.slot);
    assert!(members.get(old).is_none() && members.note(old).is_none() && members.remove(old).is_none());
    assert_eq!(members.update(old, |_| ()), None);
    assert_eq!(members.get(new).unwrap().run, run(3));
}

/// Addresses of both families, the mapped one among them, and the largest numbers.
#[test]
fn an_entry_keeps_of_an_address_what_the_wire_keeps() {
    let mut members = table(10);
    let me = members.me();
    for addr in ["10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[::]:65535", "255.255.255.255:65535", "[fe80::1%3]:7"] {
        let addr: SocketAddr = addr.parse().unwrap();
        members.note(me).unwrap().move_to(addr);
        let kept = members.local().addr();
        assert_eq!(kept, SocketAddr::new(addr.ip(), addr.port()), "without the scope");
        assert!(members.local().is_at(addr) && members.local().is_at(kept) && members.is_at(addr));
        assert!(!members.is_at("10.0.0.9:1".parse().unwrap()));
    }
    assert_ne!(
        Packed::from("10.0.0.1:1".parse::<SocketAddr>().unwrap()),
        Packed::from("[::ffff:10.0.0.1]:1".parse::<SocketAddr>().unwrap())
    );
}

#[test]
fn a_protocol_of_the_far_future_is_not_taken_for_an_old_one() {
    for (told, kept) in [(1, 1), (65_535, 65_535), (65_537, 65_535), (u32::MAX, 65_535)] {
        let record = Record { protocol: told, ..record_of("n", 1) };
        assert_eq!(entry(&record, NodeName::new("n").unwrap(), Alive, Instant::ZERO).protocol, kept);
    }
}

#[test]
fn nobody_is_thought_to_be_unheard_for_longer_than_it_is() {
    let at = |ms: u64| Instant::from_nanos(ms * 1_000_000);
    let mut entry = newcomer(2);
    for (heard, asked, unheard) in [(5_999, 6_000, true), (5_000, 5_999, false), (5_999, 5_000, false), (0, 0, false)] {
        entry.hear(at(heard));
        assert_eq!(entry.is_unheard_since(at(asked)), unheard, "heard at {heard} ms, asked for {asked}");
    }
}

#[test]
fn a_full_table_takes_nobody_in_until_somebody_goes() {
    let mut members = table(3);
    let peer = members.insert(newcomer(2)).unwrap();
    members.insert(newcomer(3)).unwrap();
    assert_eq!(members.insert(newcomer(4)), None);
    assert_eq!(members.listed(), 3);

    members.remove(peer);
    assert!(members.insert(newcomer(4)).is_some());
}

/// All that the table keeps beside its entries equals a recount.
fn check(members: &Members, model: &BTreeMap<u64, Peer>) {
    assert_eq!(members.listed(), model.len());
    let live: Vec<u64> = members.iter().filter(|(_, e)| e.is_live()).map(|(_, e)| e.run.get()).collect();
    let mut listed: Vec<u64> = members.live().map(|(_, e)| e.run.get()).collect();
    assert_eq!((listed.len(), members.live_len()), (live.len(), live.len()));
    listed.sort_unstable();
    let mut sorted = live;
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    let places: Vec<u64> = members.live().map(|(_, e)| mix(e.run.get())).collect();
    assert!(places.is_sorted(), "the ring is in order");
    let gone: Vec<u32> = members.gone().map(|(peer, _)| peer.slot).collect();
    assert!(gone.is_sorted() && members.gone().all(|(_, e)| !e.is_live()));
    assert_eq!(gone.len() + places.len(), members.listed());
    if members.local().is_live() {
        let here = members.ahead(0).and_then(|place| members.standing_at(place)).map(|(peer, _)| peer);
        assert_eq!(here, Some(members.me()), "we know our place");
    }

    let recount = members.iter().fold(0u64, |sum, (_, e)| sum.wrapping_add(summand(e)));
    assert_eq!(members.fingerprint(), recount);
    for bits in [0, 3, 7] {
        let mut sums = vec![0; 1 << bits];
        members.sums(bits, &mut sums);
        let all = sums.iter().fold(0u32, |all, &sum| all.wrapping_add(sum));
        assert_eq!(all, recount as u32, "the buckets add up");
        for (which, &sum) in sums.iter().enumerate() {
            let mut listed = 0;
            let in_bucket = members.in_bucket(bits, which as u32).inspect(|_| listed += 1);
            assert_eq!(in_bucket.fold(0u32, |all, (_, e)| all.wrapping_add(summand(e) as u32)), sum);
            let belongs = |e: &Entry| e.is_live() && bucket(e.run, bits) == which as u32;
            assert_eq!(listed, members.iter().filter(|(_, e)| belongs(e)).count());
        }
    }
    for (&id, &peer) in model {
        assert_eq!(members.get(peer).map(|e| e.run), Some(run(id)));
        assert_eq!(members.find(run(id)), Some(peer));
        assert_eq!(members.find_name(&members.get(peer).unwrap().name), Some(peer));
    }
}

#[test]
fn after_ten_thousand_random_changes_every_index_equals_a_recount() {
    let (mut members, mut rng) = (table(50), Rng::new(7));
    let mut model = BTreeMap::from([(1, members.me())]);
    for turn in 0..10_000u64 {
        let (id, state) = (2 + rng.below(80), [Alive, Suspect, Dead, Left][rng.index(4)]);
        match (rng.index(8), model.get(&id).copied()) {
            (0..=2, None) => {
                let known = members.find_name(&format!("n{id}")).is_some();
                if let Some(peer) = (!known).then(|| members.insert(newcomer(id))).flatten() {
                    model.insert(id, peer);
                }
            }
            (3, Some(peer)) => {
                assert_eq!(members.remove(peer).unwrap().run, run(id));
                model.remove(&id);
                assert_eq!((members.find(run(id)), members.get(peer).is_none()), (None, true));
            }
            // The same name in another run.
            (4, Some(peer)) => {
                let next = 1_000 + turn;
                members.update(peer, |e| e.run = run(next));
                model.remove(&id);
                model.insert(next, peer);
                assert_eq!(members.find(run(id)), None);
            }
            (_, Some(peer)) => {
                members.update(peer, |e| {
                    e.status = state;
                    e.incarnation.0 += 1;
                    e.state.set(&[("turn", Some(&[turn as u8 / 2]))], 100).unwrap();
                });
            }
            (_, None) => assert_eq!(members.find(run(id)), None),
        }
        if turn % 8 == 0 || turn > 9_900 {
            check(&members, &model);
        }
    }
    assert!(model.len() > 10);
}

#[test]
fn equal_tables_have_equal_fingerprints_in_whatever_order_they_were_filled() {
    let (mut a, mut b) = (table(100), Members::new(newcomer(1), (3, 4), 100));
    (2..50).for_each(|id| assert!(a.insert(newcomer(id)).is_some()));
    (2..50).rev().for_each(|id| assert!(b.insert(newcomer(id)).is_some()));
    assert_eq!(a.fingerprint(), b.fingerprint());

    let (in_a, in_b) = (a.find(run(9)).unwrap(), b.find(run(9)).unwrap());
    a.update(in_a, |e| e.status = Suspect);
    assert_eq!(a.fingerprint(), b.fingerprint(), "suspicion passes, and does not count");
    a.update(in_a, |e| e.status = Dead);
    b.remove(in_b);
    assert_eq!(a.fingerprint(), b.fingerprint(), "the dead are forgotten in each one's own time");
}

#[test]
fn many_at_once_are_the_same_as_one_by_one() {
    let mut rng = Rng::new(5);
    let (mut at_once, mut one_by_one) = (table(400), table(400));
    let gone = |id: u64| {
        let mut entry = newcomer(id);
        entry.status = if id.is_multiple_of(7) { Dead } else { Alive };
        entry
    };
    for members in [&mut at_once, &mut one_by_one] {
        (2..20).for_each(|id| assert!(members.insert(gone(id)).is_some()));
        (5..9).for_each(|id| assert!(members.remove(members.find(run(id)).unwrap()).is_some()));
    }
    // Ourselves and some that are known are among them, and more than there is room for.
    let mut ids: Vec<u64> = (1..600).collect();
    rng.shuffle(&mut ids);
    assert_eq!(at_once.insert_all(1_000, ids.iter().map(|&id| gone(id))), 400 - 15);
    assert_eq!(ids.iter().filter(|&&id| one_by_one.insert(gone(id)).is_some()).count(), 400 - 15);
    assert_eq!(at_once.fingerprint(), one_by_one.fingerprint());
    let model = |members: &Members| members.iter().map(|(peer, e)| (e.run.get(), peer)).collect::<BTreeMap<_, _>>();
    assert_eq!(model(&at_once), model(&one_by_one));
    check(&at_once, &model(&at_once));
    assert!(at_once.ring == one_by_one.ring && at_once.rank == one_by_one.rank && at_once.gone == one_by_one.gone);
}

#[test]
fn a_draw_gives_different_live_members_and_never_us() {
    let (mut members, mut rng) = (table(100), Rng::new(3));
    let peers: Vec<Peer> = (2..40).map(|id| members.insert(newcomer(id)).unwrap()).collect();
    members.update(peers[0], |e| e.status = Dead);
    let mut counts = BTreeMap::new();
    for _ in 0..4_000 {
        let mut drawn = Vec::new();
        members.draw(&mut rng, 3, |e| e.run == run(5), |_, e| drawn.push(e.run.get()));
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 3);
        drawn.iter().for_each(|id| *counts.entry(*id).or_insert(0) += 1);
    }
    assert!([1, 2, 5].iter().all(|id| !counts.contains_key(id)), "us, the dead and the skipped");
    assert_eq!(counts.len(), 36);
    assert!(counts.values().all(|n| (230..440).contains(n)), "each about 333 times: {counts:?}");
}

#[test]
fn round_trips_are_smoothed_as_in_rfc_6298() {
    let mut rtt = Rtt::default();
    assert_eq!(rtt.timeout(), None);
    rtt.sample(Duration::from_millis(8));
    assert_eq!((rtt.mean(), rtt.timeout()), (Duration::from_millis(8), Some(Duration::from_millis(24))));
    rtt.sample(Duration::from_millis(16));
    // 7/8 · 8 + 1/8 · 16 = 9; 3/4 · 4 + 1/4 · 8 = 5.
    assert_eq!((rtt.mean(), rtt.timeout()), (Duration::from_millis(9), Some(Duration::from_millis(29))));
}
