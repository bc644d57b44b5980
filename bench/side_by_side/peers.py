"""How each peer is had: built or installed into build/peers, or reported as absent with the reason."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from samples import Entrant, Figures, Trouble

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "bench" / "peers"
BUILT = ROOT / "build" / "peers"

# For one build. The largest takes six minutes on two idle cores.
LIMIT = 3600.0


@dataclass(frozen=True)
class Program:
    """A peer that can be run here."""

    command: tuple[str, ...]
    version: str
    language: str
    footprint: Figures

    def about(self) -> dict[str, object]:
        said = json.loads(run([*self.command, "about"], limit=30))
        assert isinstance(said, dict)
        return said

    def entrants(self, peer: str) -> dict[str, tuple[Entrant, tuple[str, ...]]]:
        """By name, with the command; the default variant first."""
        about = self.about()
        variants = about["variants"]
        assert isinstance(variants, dict)
        found = {}
        for at, (variant, configuration) in enumerate(variants.items()):
            name = str(about["name"]) + (f" {variant}" if at else "")
            texts = {key: str(about[key]) for key in ("sealed", "joined", "broadcast", "direct", "request")}
            entrant = Entrant(
                peer=peer,
                variant=variant,
                version=self.version,
                configuration=configuration,
                language=self.language,
                detects=bool(about["detects"]),
                **texts,
            )
            found[name] = (entrant, self.command)
        return found


def run(command: Sequence[str], limit: float = LIMIT, **environment: str) -> str:
    """What it printed."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError:
        raise Trouble(f"there is no {command[0]}") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"{command[0]} took more than {limit:.0f} s") from None
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise Trouble(f"{pathlib.Path(command[0]).name}: {last[0][:300]}")
    return done.stdout


def crate(name: str) -> Program:
    """A program of the workspace bench/peers. Each has a target folder of its own, so that features of one do not reach
    another, and the first build of each is from nothing."""
    package, folder = f"peer-{name}", BUILT / name
    manifest = ["--manifest-path", str(SOURCES / "Cargo.toml")]
    note = folder / "built.json"
    # Downloads are no part of building.
    run(["cargo", "fetch", *manifest])
    is_cold = not folder.exists()
    wall, cpu = time.monotonic(), children_cpu()
    run(["cargo", "build", "--release", "--quiet", "--target-dir", str(folder), "--package", package, *manifest])
    if is_cold:
        note.write_text(json.dumps({"build_s": time.monotonic() - wall, "build_cpu_s": children_cpu() - cpu}))
    program = folder / "release" / package
    tree = run(["cargo", "tree", "--edges", "normal", "--prefix", "none", "--package", package, *manifest])
    packages = {" ".join(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    packages = {line for line in packages if not line.startswith((f"{package} ", "work "))}
    own = "bruit-core" if name == "bruit" else name
    version = next((line.split()[1].lstrip("v") for line in packages if line.startswith(f"{own} ")), "")
    if name == "bruit":
        version += f" ({run(['git', 'rev-parse', '--short', 'HEAD']).strip()})"
    footprint: Figures = {"megabytes": stripped_size(program) / 1e6, "packages": float(len(packages))}
    if note.exists():
        footprint.update(json.loads(note.read_text()))
    return Program((str(program),), version, "Rust", footprint)


def children_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def stripped_size(program: pathlib.Path) -> int:
    stripped = program.with_name(program.name + ".stripped")
    shutil.copy(program, stripped)
    run(["strip", str(stripped)])
    size = stripped.stat().st_size
    stripped.unlink()
    return size


def crates(name: str) -> Callable[[], Program]:
    return lambda: crate(name)


# In the order in which they are run and shown.
PEERS: dict[str, Callable[[], Program]] = {
    "bruit": crates("bruit"),
    "chitchat": crates("chitchat"),
    "iroh-gossip": crates("iroh-gossip"),
    "memberlist": crates("memberlist"),
    "foca": crates("foca"),
}


def machine() -> tuple[str, ...]:
    """The program that measures the machine itself."""
    return crate("machine").command
