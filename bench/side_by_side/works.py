"""What is measured, and which figures of it go into which table."""

from __future__ import annotations

from dataclasses import dataclass, replace

from samples import SEALED, Entrant


@dataclass(frozen=True)
class Work:
    """One run of a program, by its command line."""

    name: str
    words: tuple[str, ...]
    # Which ability of an entrant it needs: a field of Entrant; empty: none.
    needs: str = ""
    # Nearly nothing is done in it but waiting: all entrants run at the same time.
    together: bool = False
    # Done by company.py, out of several processes.
    company: bool = False
    # In `--quick` too.
    quick: bool = True
    # Variants that are not the default.
    variants: bool = False
    # Once and not in every round.
    once: bool = False
    # So often in each round: what is mostly chance needs more trials than there are rounds.
    times: int = 1
    # Seconds after which a program is killed.
    limit: float = 100.0
    # Said to it after the words in a full run: the last one counts.
    full: tuple[str, ...] = ()

    def suits(self, entrant: Entrant, is_default: bool) -> bool:
        # Sealing costs processor time, and nothing where there is mostly waiting.
        is_sealed = entrant.variant == SEALED and not (self.together or self.company)
        return (is_default or self.variants or is_sealed) and (not self.needs or bool(getattr(entrant, self.needs)))

    def in_full(self) -> Work:
        return replace(self, words=(*self.words, *self.full))

    def in_quick(self) -> Work:
        """Variants take three minutes of each round."""
        return replace(self, variants=False)


def joins(nodes: int, quick: bool = True) -> Work:
    return Work(f"join-{nodes}", ("join", f"nodes={nodes}"), quick=quick, variants=nodes == 50)


def broadcasts(nodes: int, quick: bool = True) -> Work:
    words = ("broadcast", f"nodes={nodes}", "bytes=256", "seconds=2", "settle=1")
    return Work(f"broadcast-{nodes}", words, needs="broadcast", quick=quick, variants=nodes == 10)


def directs(size: int, reliable: bool) -> Work:
    how = "reliable" if reliable else "best-effort"
    words = ("direct", f"bytes={size}", f"reliable={str(reliable).lower()}", "seconds=1.5")
    return Work(f"direct-{how}-{size}", words, needs="reliable" if reliable else "best_effort")


def deaths(nodes: int, quick: bool = True) -> Work:
    # Each trial has a cluster of its own, so that none finds what another one left behind.
    words = ("detect", f"nodes={nodes}", "settle=15", "trials=1")
    return Work(f"detect-{nodes}", words, needs="detects", together=True, quick=quick, times=2, limit=200.0)


def idles(nodes: int) -> Work:
    return Work(f"idle-{nodes}", ("idle", f"nodes={nodes}", "settle=8", "seconds=10"), together=True, limit=120.0)


def busy() -> Work:
    # Who is kept waiting, and for how long, is mostly chance: a minute in each of five rounds says more than five minutes once.
    words, full = ("busy", "nodes=10", "settle=40", "seconds=20", "hogs=1"), ("seconds=60",)
    return Work("busy", words, needs="detects", together=True, company=True, limit=200.0, full=full)


# In this order in each round.
WORKS = (
    joins(10),
    joins(50),
    joins(200, quick=False),
    broadcasts(3, quick=False),
    broadcasts(10),
    broadcasts(50),
    directs(256, reliable=True),
    directs(16_384, reliable=True),
    directs(256, reliable=False),
    Work("request", ("request", "bytes=256", "seconds=1.5"), needs="request"),
    Work("start", ("start",), company=True),
    Work("bulk", ("bulk", "nodes=3", "messages=100000", "seconds=8"), needs="broadcast", once=True),
    deaths(50),
    deaths(100, quick=False),
    idles(10),
    idles(100),
    busy(),
)

MACHINE = Work("machine", ())
FOOTPRINT = "footprint"


@dataclass(frozen=True)
class Column:
    """One figure of a work, and which direction is better."""

    work: str
    figure: str
    heading: str
    # What it is called in a sentence.
    what: str
    more_is_better: bool = False
    # Entrants that wait for something less than a list of all members are not quite comparable.
    waits_for_lists: bool = False
    # What an entrant met, not what it did: nobody loses by it.
    is_circumstance: bool = False
    # Most rounds have none: what counts is the mean, where else it is the median.
    is_rare: bool = False
    # Where bruit loses: what a profile says of it.
    why: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    text: str
    columns: tuple[Column, ...]


def broadcast_table(nodes: int) -> Table:
    work, to = f"broadcast-{nodes}", f"broadcast to {nodes}"
    return Table(
        f"Broadcasts to {nodes} nodes",
        "256 bytes that do not compress. First one message at a time, by turns, until the last node has heard it; then one "
        "node says as much as it can, with at most 1,000 messages under way. Counted where they are heard, by number; lost or "
        "late is what had not come 2.5 s after anything else did, or 6 s after the last was said. serf's bytes hold its RPC.",
        (
            Column(work, "p50_ms", "to all, p50, ms", f"{to}: until all have heard"),
            Column(work, "worst_ms", "worst, ms", f"{to}: the slowest"),
            Column(work, "per_second", "a second", f"{to}: messages a second", more_is_better=True),
            Column(work, "lost_percent", "lost or late, %", f"{to}: messages lost or late"),
            Column(work, "cpu_us", "CPU a delivery, µs", f"{to}: CPU a delivery"),
            Column(work, "wire_bytes", "wire bytes a delivery", f"{to}: bytes on the wire a delivery"),
        ),
    )


def death_columns(nodes: int) -> tuple[Column, ...]:
    work = f"detect-{nodes}"
    return (
        Column(work, "first_s", f"first of {nodes}, s", f"a death among {nodes}: the first to know"),
        Column(work, "all_s", f"all of {nodes}, s", f"a death among {nodes}: until all know"),
    )


SEALING = (
    "of the 79 bytes of a packet 28 are IP and UDP, 34 the header and tag of what is sealed, and 17 the probe: fewer than a "
    "packet in clear has elsewhere"
)
PROBES = "one probe a second and its answer; who sends fewer finds a death later, or not at all"
PAGES = "among ten, three quarters of it are pages of the program's file, which processes share and nodes do not add to"
KEPT = "of 55 kB of heap among 100, sessions with all others are 5, the view that the program asked for 14, the table 10"


def idle_columns(nodes: int) -> tuple[Column, ...]:
    work, among = f"idle-{nodes}", f"idle among {nodes}"
    return (
        Column(work, "cpu_percent", f"{nodes}: CPU, %", f"{among}: CPU a node"),
        Column(work, "wire_bytes", "bytes/s", f"{among}: bytes a second a node", why=SEALING),
        Column(work, "packets", "packets/s", f"{among}: packets a second a node", why=PROBES),
        Column(work, "resident_kb", "memory, kB", f"{among}: resident memory a node", why=PAGES),
        Column(work, "own_kb", "its own, kB", f"{among}: resident memory a node, without pages of files", why=KEPT),
    )


def direct_columns(name: str, heading: str) -> tuple[Column, ...]:
    work = f"direct-{name}"
    return (
        Column(work, "per_second", f"{heading}, a second", f"messages to one member, {heading}, a second", more_is_better=True),
        Column(work, "cpu_us", "CPU each, µs", f"messages to one member, {heading}: CPU each"),
        Column(work, "lost_percent", "lost, %", f"messages to one member, {heading}: lost"),
    )


WHOLE = "sockets, threads, encryption and compression are in it; foca leaves all of these to its user"

TABLES = (
    Table(
        "Joining",
        "So many nodes start at once and know one of them: seconds until each lists all.",
        tuple(
            Column(f"join-{n}", "seconds", f"{n} nodes, s", f"{n} nodes join", waits_for_lists=True) for n in (10, 50, 200)
        )
        + (Column("join-50", "cpu_ms_a_node", "50: CPU a node, ms", "50 nodes join: CPU a node", waits_for_lists=True),),
    ),
    Table(
        "Cold start",
        "A process starts beside one that runs: milliseconds from its start until it lists the other.",
        (Column("start", "first_member_ms", "first member, ms", "cold start to the first member", waits_for_lists=True),),
    ),
    Table(
        "Deaths",
        "A process that holds one member is killed with SIGKILL, 15 s after all list it; the others are looked at every 10 ms. "
        "Twice in each round, each time in a cluster of its own: ten trials where there are five rounds.",
        death_columns(50) + death_columns(100),
    ),
    Table(
        "Busy machine",
        "Ten processes of each entrant, all entrants at the same time, for a minute in each round (20 s in a quick run). "
        "Two more processes for each entrant never rest: one in the session of its members, as what else their user runs, "
        "and one in a session of its own, as another user's. How often a node stopped listing a member that was alive, in "
        "the mean of the rounds, and what the members went through: the longest that one of ten threads beside them, "
        "which want to run every 10 ms, was kept waiting.",
        (
            Column("busy", "false_deaths", "false deaths, mean", "false deaths on a busy machine", is_rare=True),
            Column("busy", "longest_stall_s", "longest stall, s", "the longest stall", is_circumstance=True),
        ),
    ),
    broadcast_table(3),
    broadcast_table(10),
    broadcast_table(50),
    Table(
        "Messages to one member",
        "Between two nodes, counted where they are heard. Who promises delivery has at most 4,000 under way.",
        direct_columns("reliable-256", "reliable 256 B")
        + direct_columns("reliable-16384", "reliable 16 KiB")[:2]
        + direct_columns("best-effort-256", "best effort 256 B"),
    ),
    Table(
        "Questions",
        "One after the other to one member, 256 bytes there and back.",
        (
            Column("request", "p50_us", "p50, µs", "question and answer"),
            Column("request", "p99_us", "p99, µs", "question and answer: one in a hundred"),
            Column("request", "cpu_us", "CPU each, µs", "question and answer: CPU"),
        ),
    ),
    Table(
        "Idle",
        "What one node of a cluster in which nothing happens costs. Bytes with IP and UDP or TCP headers. Memory is what "
        "the process grew by since before its first node, divided by its nodes: all that is resident, and what of it is "
        "its own and no page of its program's file.",
        idle_columns(10) + idle_columns(100),
    ),
    Table(
        "Memory after 100,000 broadcasts",
        "Three nodes, 256 bytes each, at most 8 s. Who is slower has heard less and grown less, and is not compared.",
        (
            Column("bulk", "grown_kb_a_node_after_all", "grown a node, kB", "memory grown by 100,000 broadcasts"),
            Column("bulk", "heard", "heard", "broadcasts heard in 8 s", more_is_better=True),
        ),
    ),
    Table(
        "What it brings along",
        "The program of this benchmark, optimised and stripped, or what is installed for one that is interpreted; crates, or "
        "packages that the installer brings; and the CPU time of building all of that from nothing, downloads aside, once.",
        (
            Column(FOOTPRINT, "megabytes", "program, MB", "size of the program", why=WHOLE),
            Column(FOOTPRINT, "packages", "packages", "packages it is made of", why=WHOLE),
            Column(FOOTPRINT, "build_cpu_s", "build, CPU s", "CPU to build it", why=WHOLE),
        ),
    ),
)
