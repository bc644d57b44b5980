//! Runs as text, kept in tests/transcripts: a change of the protocol shows there as a difference that can be read.
//!
//! `BRUIT_UPDATE=1 cargo test -p bruit-core --features bruit-core/sim --test transcripts` writes them anew.

#![cfg(feature = "sim")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use bruit_core::config::Config;
use bruit_core::sim::transcript::Transcript;
use bruit_core::sim::{Duration, Network, World, world};
use bruit_core::view::{EventKind, MemberState};

/// A cluster of `a`, `b`, …, and what is written down of it.
struct Scene {
    world: World,
    script: Transcript,
    nodes: Vec<usize>,
    /// Also packets that only probe.
    all: bool,
}

impl Scene {
    /// `n` members that have known each other for a while.
    fn of(n: usize) -> Scene {
        let mut world = World::new(1);
        let nodes: Vec<usize> = (0..n).map(|i| world.add(NAMES[i], config(i > 0))).collect();
        world.run_until(secs(20), |w| w.all_list(&nodes, n)).expect("they find each other");
        world.run_for(secs(5));
        let script = Transcript::of(&mut world);
        Scene { world, script, nodes, all: false }
    }

    fn note(&mut self, text: &str) {
        self.script.note(&mut self.world, text);
    }

    fn run(&mut self, ms: u64) {
        self.world.run_for(Duration::from_millis(ms));
    }

    fn until(&mut self, done: impl FnMut(&mut World) -> bool) {
        self.world.run_until(secs(60), done).expect("it comes to that");
    }

    /// Until all of these say so of that member.
    fn until_all(&mut self, who: &[usize], of: usize, state: MemberState) {
        let who: Vec<usize> = who.iter().map(|&i| self.nodes[i]).collect();
        let of = self.nodes[of];
        self.until(|w| who.iter().all(|&i| w.state(i, of) == Some(state)));
    }

    fn set(&mut self, who: usize, key: &str, value: &[u8]) {
        self.world.call(self.nodes[who], |e, now, out| e.set_meta(now, &[(key, Some(value))], out)).expect("it fits");
    }
}

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// With the first node as seed, or none.
fn config(seeded: bool) -> Config {
    let mut config = Config::new();
    config.seeds = if seeded { vec![world::address(0).to_string()] } else { Vec::new() };
    config
}

/// The file, what to look at, and the run.
type Row = (&'static str, &'static str, fn() -> Scene);

const SCENES: &[Row] = &[
    ("join", JOIN, join),
    ("join-third", JOIN_THIRD, join_third),
    ("relay", RELAY, relay),
    ("refute", REFUTE, refute),
    ("death", DEATH, death),
    ("frozen", FROZEN, frozen),
    ("leave", LEAVE, leave),
    ("restart", RESTART, restart),
    ("new-address", NEW_ADDRESS, new_address),
    ("name-in-use", NAME_IN_USE, name_in_use),
    ("partition", PARTITION, partition),
    ("metadata", METADATA, metadata),
    ("missed", MISSED, missed),
    ("udp-blocked", UDP_BLOCKED, udp_blocked),
];

const JOIN: &str = "\
The first two members find each other. b knows a's address and nothing else.
HELLO is answered by a COOKIE that costs a no memory: it only proves that b is where it says. JOIN brings it back, and
with it b's record. WELCOME is the answer; then b pulls a's table, part by part, and says SETTLED when that is done.
ALIVE and RECORD are news that rides on what is sent anyway.";

fn join() -> Scene {
    let mut world = World::new(1);
    let mut nodes = vec![world.add("a", config(false))];
    world.run_for(secs(5));
    let mut script = Transcript::of(&mut world);
    script.note(&mut world, "b starts");
    nodes.push(world.add("b", config(true)));
    world.run_for(Duration::from_millis(900));
    Scene { world, script, nodes, all: false }
}

const JOIN_THIRD: &str = "\
c joins by way of a. b learns of it by gossip within milliseconds: look for RECORD c on its way from a to b.
c learns of b from the table that it pulls, and both are alive to it at once. Who hears news for the first time passes it on
at once (0.004, 0.005, 0.014), and then a few times more, beside PING and ACK: who missed it once does not miss it thrice.";

fn join_third() -> Scene {
    let mut scene = Scene::of(2);
    scene.note("c starts");
    let c = scene.world.add("c", config(true));
    scene.nodes.push(c);
    scene.run(700);
    scene
}

const RELAY: &str = "\
SWIM's indirect probe. Nothing passes between b and c any more, but both reach everybody else.
A PING that gets no ACK in time makes its sender ask others by PING_REQ; they ping the target and pass its ACK on, with
the number of the first PING. Nobody is suspected. (A relay that gets no answer either says NACK: see death.txt.)";

fn relay() -> Scene {
    let mut scene = Scene::of(4);
    scene.all = true;
    scene.note("b and c are cut off from each other");
    let (b, c) = (scene.nodes[1], scene.nodes[2]);
    scene.world.cut(b, c);
    scene.world.cut(c, b);
    // Until a relay is asked, and a little longer.
    let asked = |w: &World| w.traffic().packets[10];
    let before = asked(&scene.world);
    scene.until(|w| asked(w) > before);
    scene.run(200);
    scene
}

const REFUTE: &str = "\
c stops for longer than a probe and the doubt after it last, and is suspected. Who suspects says so at once, and asks others to look.
As soon as c is awake it hears what it is accused of: it rides on the next PING to it (Lifeguard's buddy system).
It raises its incarnation, which only it may do: ALIVE c 1 overrides every SUSPECT c 0. What had queued up is answered, late.";

fn refute() -> Scene {
    let mut scene = Scene::of(3);
    let c = scene.nodes[2];
    scene.note("c stands still (SIGSTOP)");
    scene.world.pause(c);
    scene.until_all(&[0, 1], 2, MemberState::Suspect);
    scene.run(300);
    scene.note("c goes on");
    scene.world.resume(c);
    scene.until_all(&[0, 1], 2, MemberState::Alive);
    scene.run(150);
    scene
}

const DEATH: &str = "\
c's machine loses power. Its prober asks the only other, and, as there are no more whom it could ask, c again and again; then it suspects c.
The other pings c itself, and accuses it, too: the more accusers (\"by 2\") the sooner its time to refute is over, which for its prober
began with its silence. Then c is DEAD, and that is gossiped; the dead is told as well, in case it lives.";

fn death() -> Scene {
    let mut scene = Scene::of(3);
    scene.note("c loses power");
    scene.world.power_off(scene.nodes[2]);
    scene.until_all(&[0, 1], 2, MemberState::Dead);
    scene.run(50);
    scene
}

const FROZEN: &str = "\
c's machine was suspended until all others held c for dead and had stopped to talk of it; now it wakes, and knows of nothing.
That c says it lives in incarnation 0 is stale. But stale news is not dropped in silence, or c would stay dead for ever
(memberlist's issue 345): whom it pings answers DEAD beside the ACK. c refutes with a higher incarnation, and is back.";

fn frozen() -> Scene {
    let mut scene = Scene::of(3);
    let [a, b, c] = scene.nodes[..] else { panic!("three") };
    scene.world.pause(c);
    // A suspended machine keeps no queue.
    scene.world.cut(a, c);
    scene.world.cut(b, c);
    scene.until_all(&[0, 1], 2, MemberState::Dead);
    scene.run(40_000);
    scene.world.heal();
    scene.script = Transcript::of(&mut scene.world);
    scene.all = true;
    scene.note("c wakes");
    scene.world.resume(c);
    scene.until_all(&[0, 1], 2, MemberState::Alive);
    scene.run(20);
    scene
}

const LEAVE: &str = "\
c leaves. It tells a few and pings them, until enough have answered: then it knows that the news is out (LEAVE_DONE) and
falls silent. LEFT is final for this run; nothing brings it back, and nobody suspects it for its silence.";

fn leave() -> Scene {
    let mut scene = Scene::of(4);
    scene.all = true;
    scene.note("c's application leaves");
    let c = scene.nodes[2];
    scene.world.call(c, |e, now, out| e.leave(now, secs(5), out)).expect("it is a member");
    scene.until(|w| w.events(c).iter().any(|(_, e)| e.kind == EventKind::LeaveDone));
    scene.run(100);
    scene
}

const RESTART: &str = "\
b crashes and comes back at once, under the same name and address: another run (b/2), with a higher epoch, that remembers
nothing. Nobody has noticed yet. A higher epoch always wins, so its JOIN replaces the old run: the event is ALIVE, \"other epoch\".";

fn restart() -> Scene {
    let mut scene = Scene::of(3);
    scene.note("b crashes and is started again");
    scene.world.restart(scene.nodes[1], None);
    scene.run(300);
    scene
}

const NEW_ADDRESS: &str = "\
b crashes and comes back at another address, while the others still hold the old b for alive. It may be an impostor, so a
asks the old b first, itself by datagram and by stream, and by way of c. b/2 knocks again meanwhile, and waits. When the old b
has not answered for as long as a probe takes, b/2's next JOIN lets it in: \"other address, other epoch\".";

fn new_address() -> Scene {
    let mut scene = Scene::of(3);
    scene.note("b crashes, and is started on another machine");
    scene.all = true;
    scene.world.kill(scene.nodes[1]);
    scene.world.restart(scene.nodes[1], Some(world::address(100)));
    scene.run(1_300);
    scene
}

const NAME_IN_USE: &str = "\
A second node calls itself b. The first one answers when a asks it, so the second is refused, and its application is
told why by a WARNING. It goes on trying; the holder notices nothing but a few PINGs, by datagram and by stream.";

fn name_in_use() -> Scene {
    let mut scene = Scene::of(3);
    scene.note("another b starts");
    scene.all = true;
    let other = scene.world.add("b", config(true));
    scene.nodes.push(other);
    scene.until(|w| w.events(other).iter().any(|(_, e)| e.kind == EventKind::Warning));
    scene.run(50);
    scene
}

const PARTITION: &str = "\
c was cut off from a and b until each side held the other for dead; the cut has just ended. Now and then each member knocks
at the address of somebody that it lost, as a newcomer does: HELLO. With the COOKIE c learns that it is dead to a, and refutes; its
JOIN tells a the same, and a refutes. b is told of as the dead are, and refutes as well. No restart, and nothing that c knew is lost.";

fn partition() -> Scene {
    let mut scene = Scene::of(3);
    let (left, right) = scene.nodes.split_at(2);
    scene.world.part(left, right);
    scene.until_all(&[0, 1], 2, MemberState::Dead);
    scene.until_all(&[2], 0, MemberState::Dead);
    scene.until_all(&[2], 1, MemberState::Dead);
    scene.run(40_000);
    scene.world.heal();
    scene.script = Transcript::of(&mut scene.world);
    scene.note("the partition ends");
    scene.until(|w| w.all_list(&[0, 1, 2], 3));
    scene.run(50);
    scene
}

const METADATA: &str = "\
b changes a small key: the change itself rides on gossip (STATE 0..1: from version 0 to 1). Then it sets five thousand
bytes, too much for a rumor: only the news goes out (STATE_NEWS), and who lacks it pulls it from whoever told (STATE_PULL). The
answer does not fit in a datagram and comes by stream.";

fn metadata() -> Scene {
    let mut scene = Scene::of(3);
    scene.note("b sets a small key");
    scene.set(1, "zone", b"eu");
    scene.run(400);
    scene.note("b sets a large one");
    scene.set(1, "routes", &[7; 5_000]);
    scene.run(400);
    scene
}

const MISSED: &str = "\
While c hears nothing, b changes its metadata; the rumor is told as often as it is and dies out before c is back. What is left
is a difference of fingerprints, which every PING and ACK carries. Who notices it sends a DIGEST: sums of buckets.
SUMMARY lists a bucket that differs, WANT asks for what the other has newer, RECORD brings it.";

fn missed() -> Scene {
    let mut scene = Scene::of(3);
    let [a, b, c] = scene.nodes[..] else { panic!("three") };
    scene.world.cut(a, c);
    scene.world.cut(b, c);
    scene.note("nothing reaches c; b sets a key");
    scene.set(1, "zone", b"eu");
    scene.run(400);
    scene.note("c hears again");
    scene.world.heal();
    scene.until(|w| w.view(c).find("b").is_some_and(|m| m.meta.contains_key("zone")));
    scene.run(100);
    scene
}

const UDP_BLOCKED: &str = "\
A firewall swallows all datagrams. PING and PING_REQ are lost, but beside them goes a PING by stream (⇒), and its answer
saves the member: nobody is suspected. When it has happened twice the application is warned, once a minute and member.";

fn udp_blocked() -> Scene {
    let mut scene = Scene::of(3);
    scene.all = true;
    scene.note("datagrams are swallowed");
    scene.world.set_network(Network { udp_blocked: true, ..Network::default() }).expect("valid");
    scene.run(2_500);
    scene
}

/// The scene of that name, as a file.
fn file(name: &str) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/transcripts");
    PathBuf::from(folder).join(format!("{name}.txt"))
}

fn written(&(_, about, scene): &Row) -> String {
    let mut scene = scene();
    let mut text: String = about.lines().map(|line| format!("# {line}\n")).collect();
    if !scene.all {
        text.push_str("# Packets that only probe, and arrive, are counted and left out.\n");
    }
    text.push('\n');
    text + &scene.script.text(&mut scene.world, scene.all)
}

/// Lines that are in one of the two only, with those around them.
fn difference(kept: &str, now: &str) -> String {
    let (kept, now): (Vec<&str>, Vec<&str>) = (kept.lines().collect(), now.lines().collect());
    let same = kept.iter().zip(&now).take_while(|(a, b)| a == b).count();
    let tail = kept[same..].iter().rev().zip(now[same..].iter().rev()).take_while(|(a, b)| a == b).count();
    let lines = |sign: char, lines: &[&str]| lines.iter().map(|l| format!("{sign} {l}\n")).collect::<String>();
    lines(' ', &kept[same.saturating_sub(2)..same])
        + &lines('-', &kept[same..kept.len() - tail])
        + &lines('+', &now[same..now.len() - tail])
}

#[test]
fn what_is_said_is_what_was_always_said() {
    let mut changed = String::new();
    for row in SCENES {
        let (path, now) = (file(row.0), written(row));
        if std::env::var_os("BRUIT_UPDATE").is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("the folder can be made");
            fs::write(&path, &now).expect("the transcript can be written");
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        if kept != now {
            changed += &format!("--- {}\n{}\n", path.display(), difference(&kept, &now));
        }
    }
    assert!(changed.is_empty(), "\n{changed}If that is as it should be: BRUIT_UPDATE=1 (see above)");

    let folder = fs::read_dir(file("x").parent().expect("a folder")).expect("it is there");
    let files: BTreeSet<PathBuf> = folder.map(|entry| entry.expect("readable").path()).collect();
    let scenes: BTreeSet<PathBuf> = SCENES.iter().map(|row| file(row.0)).collect();
    assert_eq!(files.len(), scenes.len(), "some are there that no scene writes");
}

#[test]
fn a_newcomer_can_read_them() {
    for row in SCENES {
        let text = written(row);
        let (about, run): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        assert!((2..=5).contains(&about.len()), "{}: {} lines of explanation", row.0, about.len());
        assert!((10..=80).contains(&run.len()), "{}: {} lines", row.0, run.len());
        assert!(text.lines().all(|line| line.chars().count() <= 160), "{}: a line that is too long", row.0);
    }
}
