//! News in whatever order it comes: what an engine makes of reports that are older, equal or newer than what it knows.

#[path = "support/pair.rs"]
mod pair;

use std::collections::BTreeMap;

use bruit_core::config::Config;
use bruit_core::id::Incarnation;
use bruit_core::rng::Rng;
use bruit_core::view::MemberState::{self, Alive, Dead, Left, Suspect};
use bruit_core::wire::frame::{Frame, Runs};
use pair::{Pair, name, run};

/// a tells b that member `i` is in that state.
fn tell(pair: &mut Pair, i: u64, state: MemberState, incarnation: u64) {
    let (run, incarnation) = (run(i), Incarnation(incarnation));
    let accuser = pair.a.run.get().to_le_bytes();
    let frame = match state {
        Alive => Frame::Alive { run, incarnation },
        Suspect => Frame::Suspect { run, incarnation, accusers: Runs(&accuser) },
        Dead => Frame::Dead { run, incarnation, age: 0 },
        Left => Frame::Left { run, incarnation, age: 0 },
    };
    let mut packet = Vec::new();
    frame.write(&mut packet);
    pair.give_b(pair.now, &packet);
}

fn state_of(pair: &mut Pair, i: u64) -> MemberState {
    pair.b.engine.view(pair.now).find(&name(i)).expect("it is listed").state
}

#[test]
fn an_older_death_notice_is_ignored_and_a_newer_one_is_believed_of_a_suspect_until_it_is_refuted() {
    let mut pair = Pair::settled(1);
    tell(&mut pair, 0, Alive, 5);
    tell(&mut pair, 0, Dead, 4);
    assert_eq!(state_of(&mut pair, 0), Alive, "older");
    tell(&mut pair, 0, Dead, 5);
    assert_eq!(state_of(&mut pair, 0), Suspect, "nobody has heard of a suspicion");
    tell(&mut pair, 0, Dead, 5);
    assert_eq!(state_of(&mut pair, 0), Suspect, "it may have refuted that");
    (0..120).for_each(|_| pair.step(Config::new().probe_interval / 100));
    tell(&mut pair, 0, Dead, 5);
    assert_eq!(state_of(&mut pair, 0), Dead, "it has not refuted for as long as that takes");
    tell(&mut pair, 0, Alive, 5);
    assert_eq!(state_of(&mut pair, 0), Dead, "this was known before");
    tell(&mut pair, 0, Alive, 6);
    assert_eq!(state_of(&mut pair, 0), Alive, "refuted");
}

#[test]
fn after_a_thousand_random_reports_each_state_has_the_members_that_the_rule_says() {
    const MEMBERS: u64 = 20;
    let mut pair = Pair::settled(MEMBERS);
    let mut rng = Rng::new(9);
    let mut model: BTreeMap<u64, (MemberState, u64)> = (0..MEMBERS).map(|i| (i, (Alive, 0))).collect();
    for _ in 0..1000 {
        let (i, state, incarnation) = (rng.below(MEMBERS), rng.below(100), rng.below(40));
        // Few leave: that is for ever.
        let state = [Alive, Suspect, Dead, Left][if state == 0 { 3 } else { (state % 3) as usize }];
        tell(&mut pair, i, state, incarnation);
        pair.now.mono = pair.now.mono + Config::new().probe_interval;
        let known = model.get_mut(&i).expect("one of twenty");
        // SWIM §4.2; and the dead come back by a higher incarnation.
        let news = match (known.0, state) {
            (Left, _) | (Dead, Suspect) => false,
            (_, Left) => true,
            (Alive, Suspect | Dead) | (Suspect, Dead) => incarnation >= known.1,
            _ => incarnation > known.1,
        };
        if news {
            // A death out of the blue is a suspicion first.
            *known = if (known.0, state) == (Alive, Dead) { (Suspect, incarnation) } else { (state, incarnation) };
        }
    }
    let view = pair.b.engine.view(pair.now);
    let seen: BTreeMap<String, MemberState> =
        view.members.iter().filter(|m| m.name.starts_with("member-")).map(|m| (m.name.to_string(), m.state)).collect();
    let expected = model.iter().map(|(&i, &(state, _))| (name(i), state)).collect();
    assert_eq!(seen, expected);
    let count = |state| seen.values().filter(|&&s| s == state).count();
    assert!([Alive, Suspect, Dead, Left].iter().all(|&state| count(state) > 0), "all four occur: {seen:?}");
}
