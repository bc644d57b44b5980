"""Runs every example in README.md and docs/: what is written there has to work.

- ```c with a `main` is a program: compiled against build/debug, run, exit code 0. Where it reads `argv`, it is given
  the address of a running node. Without `main` it is a piece of a program: top-level declarations are compiled, and
  statements are run behind a prelude that has `config`, and `node`, running.
- ```cpp likewise, in C++17.
- ```python is a script; top-level `await` is fine. It may use `seed`, the address of a running node.
- ```rust is a doc test of bruit-core: `cargo test` runs it.
- ```sh and ```console: a `make` target that is named has to exist.
- `<!-- not run: reason -->` above a block leaves it out, and the reason is printed.

Also: every crate that a manifest names is in docs/DEPENDENCIES.md, and links to files lead to one.

    docs.py [FILE...]      in the Python that has bruit installed; needs build/debug/libbruit.so
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import textwrap

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT = 60  # seconds for one example

SEED = """
import sys, bruit
with bruit.Node("docs-seed", bind="127.0.0.1:0") as node:
    print(node.address, flush=True)
    sys.stdin.read()
"""

PYTHON_RUNNER = """
import ast, asyncio, inspect, sys
path, seed = sys.argv[1:]
code = compile(open(path).read(), path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__", "seed": seed}
result = eval(code, names)
if inspect.isawaitable(result):
    asyncio.run(result)
"""

C_PRELUDE = """
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
"""

C_MAIN = """
int main(void)
{{
    bruit_config *config = NULL;
    bruit_node *node = NULL;
    int rc = 0;
    (void)rc;
    if (bruit_config_new(&config) < 0 || bruit_config_set(config, "bind", "127.0.0.1:0") < 0
        || bruit_node_new(config, &node) < 0 || bruit_node_start(node) < 0)
        return 1;
    {{
{body}
    }}
    return 0;
}}
"""


class Block:
    def __init__(self, path, line, language, text, reason):
        self.where = f"{path.relative_to(ROOT)}:{line}"
        self.language, self.text, self.reason = language, text, reason


def blocks(path):
    """The fenced blocks of a Markdown file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    reason, i = None, 0
    while i < len(lines):
        line = lines[i]
        if fence := re.match(r"^(\s*)```(\S*)", line):
            start, body, i = i, [], i + 1
            while i < len(lines) and lines[i].strip() != "```":
                body.append(lines[i][len(fence.group(1)):])
                i += 1
            yield Block(path, start + 1, fence.group(2), "\n".join(body) + "\n", reason)
            reason = None
        elif comment := re.match(r"^\s*<!-- not run: (.*?) -->", line):
            reason = comment.group(1)
        elif line.strip():
            reason = None
        i += 1


def run(command, **options):
    """None where it went well, else what went wrong."""
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT, **options)
    except subprocess.TimeoutExpired:
        return f"still running after {LIMIT} s"
    return None if done.returncode == 0 else f"exit code {done.returncode}\n{done.stdout}{done.stderr}".rstrip()


class Examples:
    def __init__(self, folder, seed):
        self.folder, self.seed = folder, seed

    def compiled(self, block, variable, usual, suffix, flags):
        compiler = shlex.split(os.environ.get(variable) or usual)
        if not shutil.which(compiler[0]):
            raise Skip(f"no {compiler[0]}")
        text = block.text
        whole = re.search(r"\bmain\s*\(", text)
        if not whole:
            include = "#include <bruit.h>\n" if suffix == ".c" else "#include <bruit.hpp>\n"
            if re.match(r"\s*(static |typedef |void |struct |#)", text) or suffix != ".c":
                text = C_PRELUDE + include + text + "\nint main(void) { return 0; }\n"
                flags = [*flags, "-Wno-unused-function"]
            else:
                text = C_PRELUDE + include + C_MAIN.format(body=textwrap.indent(text, "        "))
        source, program = self.folder / f"example{suffix}", self.folder / "example"
        source.write_text(text)
        trouble = run([*compiler, *flags, "-Wall", "-Wextra", "-Werror", f"-I{ROOT}/include", "-o", str(program), str(source),
                       f"-L{ROOT}/build/debug", "-lbruit", f"-Wl,-rpath,{ROOT}/build/debug", "-lpthread"])
        if trouble:
            return trouble
        arguments = [self.seed] if whole and "argv" in text else []
        return run([str(program), *arguments], cwd=self.folder, stdin=subprocess.DEVNULL)

    def c(self, block):
        return self.compiled(block, "CC", "cc", ".c", ["-std=c99", "-D_POSIX_C_SOURCE=200809L"])

    def cpp(self, block):
        return self.compiled(block, "CXX", "c++", ".cpp", ["-std=c++17"])

    def python(self, block):
        source = self.folder / "example.py"
        source.write_text(block.text)
        return run([sys.executable, "-W", "error", "-c", PYTHON_RUNNER, str(source), self.seed], cwd=self.folder,
                   stdin=subprocess.DEVNULL)

    def sh(self, block):
        for target in re.findall(r"^\s*\$?\s*(?:sudo )?make ([a-z-]+)", block.text, re.MULTILINE):
            if trouble := run(["make", "--dry-run", target], cwd=ROOT):
                return f"make {target}: {trouble}"
        return None

    console = sh


class Skip(Exception):
    pass


def check(block, examples):
    """(word for the line, what went wrong)"""
    test = getattr(examples, block.language, None) if block.language in ("c", "cpp", "python", "sh", "console") else None
    if block.reason:
        return "skipped", block.reason
    if test is None:
        return None, None
    try:
        trouble = test(block)
    except Skip as skip:
        return "skipped", str(skip)
    return ("failed", trouble) if trouble else ("passed", None)


def dependencies_named():
    """Crates in the manifests that docs/DEPENDENCIES.md says nothing about."""
    text = (ROOT / "docs" / "DEPENDENCIES.md").read_text(encoding="utf-8")
    missing = []
    for manifest in (ROOT / "Cargo.toml", ROOT / "core" / "Cargo.toml", ROOT / "python" / "Cargo.toml"):
        section = ""
        for line in manifest.read_text(encoding="utf-8").splitlines():
            if line.startswith("["):
                section = line
            elif "dependencies]" in section and (name := re.match(r"([A-Za-z0-9_-]+)\s*=", line)):
                if name[1] != "bruit-core" and not re.search(rf"\b{name[1]}\b", text):
                    missing.append(f"{name[1]} ({manifest.relative_to(ROOT)})")
    return "not in docs/DEPENDENCIES.md: " + ", ".join(missing) if missing else None


def links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    broken = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text) if not (path.parent / link).exists()]
    return f"no such file: {', '.join(broken)}" if broken else None


def main():
    files = [pathlib.Path(name).resolve() for name in sys.argv[1:]]
    files = files or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    companion = subprocess.Popen([sys.executable, "-c", SEED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        seed = companion.stdout.readline().strip()
        with tempfile.TemporaryDirectory() as folder:
            examples = Examples(pathlib.Path(folder), seed)
            facts = [("every dependency is documented", dependencies_named())]
            facts += [(f"links of {path.relative_to(ROOT)}", links_lead_somewhere(path)) for path in files if path.exists()]
            for what, trouble in facts:
                counts["failed" if trouble else "passed"] += 1
                print(f"{what} {'failed' if trouble else 'passed'}", flush=True)
                if trouble:
                    print(textwrap.indent(trouble, "    "), flush=True)
            for path in filter(pathlib.Path.exists, files):
                for block in blocks(path):
                    word, text = check(block, examples)
                    if word:
                        counts[word] += 1
                        print(f"{block.where} {block.language} {word}", flush=True)
                    if text:
                        print(textwrap.indent(text, "    "), flush=True)
    finally:
        companion.stdin.close()
        companion.wait()
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(counts["failed"] > 0)


if __name__ == "__main__":
    main()
