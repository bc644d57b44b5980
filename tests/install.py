"""Installs the library into an empty folder and uses it from there, as a packager and a user would.

Shared and static through pkg-config, in C and C++, through CMake, under DESTDIR; then uninstalls.
Standard library only; what needs a tool that is not there is skipped, and says so.
"""

import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION = next(line.split('"')[1] for line in (ROOT / "Cargo.toml").read_text().splitlines() if line.startswith("version"))

C_PROGRAM = """
#include <bruit.h>
#include <stdio.h>
int main(void)
{
    bruit_config *config;
    bruit_node *node;
    if (bruit_config_new(&config) < 0 || bruit_config_set(config, "bind", "127.0.0.1:0") < 0
        || bruit_node_new(config, &node) < 0 || bruit_node_start(node) < 0 || bruit_node_free(node) < 0) {
        fprintf(stderr, "%s\\n", bruit_last_error());
        return 1;
    }
    bruit_config_free(config);
    puts(bruit_version());
    return 0;
}
"""

CXX_PROGRAM = '#include <bruit.hpp>\n#include <cstdio>\nint main() { std::puts(bruit_version()); }\n'

CMAKE_LISTS = """
cmake_minimum_required(VERSION 3.16)
project(user C)
find_package(bruit {version} REQUIRED)
add_executable(shared user.c)
target_link_libraries(shared PRIVATE bruit::bruit)
if(TARGET bruit::bruit-static)
  add_executable(static user.c)
  target_link_libraries(static PRIVATE bruit::bruit-static)
endif()
"""


class Skip(Exception):
    pass


def output(*command, **environment):
    done = subprocess.run([str(word) for word in command], check=False, capture_output=True, text=True, timeout=300,
                          env={**os.environ, **environment})
    assert done.returncode == 0, f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


def make(*words):
    return output("make", "--no-print-directory", "-C", ROOT, *words)


def need(tool):
    if not shutil.which(tool):
        raise Skip(f"no {tool}")
    return tool


def compiler(variable, usual):
    command = shlex.split(os.environ.get(variable) or usual)
    need(command[0])
    return command


class Installed:
    """What each test is given: a prefix that bruit is installed to, and a folder to work in."""

    def __init__(self, folder):
        self.folder = folder
        self.prefix = folder / "prefix"
        (folder / "user.c").write_text(C_PROGRAM)
        (folder / "user.cpp").write_text(CXX_PROGRAM)
        make("install", f"PREFIX={self.prefix}")

    def pkg_config(self, *words):
        return output(need("pkg-config"), *words, "bruit", PKG_CONFIG_PATH=str(self.prefix / "lib/pkgconfig")).split()

    def program_says_its_version(self, program):
        assert output(program, LD_LIBRARY_PATH=str(self.prefix / "lib")) == VERSION


def test_the_files_are_where_packagers_expect_them(installed):
    lib = installed.prefix / "lib"
    assert os.readlink(lib / "libbruit.so") == "libbruit.so.0"
    assert os.readlink(lib / "libbruit.so.0") == f"libbruit.so.{VERSION}"
    for name in ("lib/libbruit.a", "include/bruit.h", "include/bruit.hpp", "lib/cmake/bruit/bruitConfig.cmake"):
        assert (installed.prefix / name).stat().st_size > 0, name
    for name in ("lib/pkgconfig/bruit.pc", "lib/cmake/bruit/bruitConfig.cmake"):
        text = (installed.prefix / name).read_text()
        assert VERSION in text
        assert not any(mark in text for mark in ("@PREFIX@", "@LIBDIR@", "@VERSION@", "@LIBS_PRIVATE@")), text


def test_the_shared_library_has_its_soname_and_needs_little(installed):
    dynamic = output(need("readelf"), "--dynamic", "--wide", installed.prefix / "lib/libbruit.so")
    assert "[libbruit.so.0]" in dynamic, dynamic
    assert "NODELETE" in dynamic, dynamic
    needed = {line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line}
    assert needed <= {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}, needed


def test_pkg_config_links_the_shared_library(installed):
    program = installed.folder / "shared"
    output(*compiler("CC", "cc"), installed.folder / "user.c", *installed.pkg_config("--cflags", "--libs"), "-o", program)
    installed.program_says_its_version(program)


def test_pkg_config_links_the_static_library(installed):
    program = installed.folder / "static"
    words = [w for w in installed.pkg_config("--static", "--cflags", "--libs") if w != "-lbruit"]
    output(*compiler("CC", "cc"), installed.folder / "user.c", installed.prefix / "lib/libbruit.a", *words, "-o", program)
    assert output(program) == VERSION
    assert "libbruit" not in output(need("readelf"), "--dynamic", program)


def test_the_cxx_header_compiles_alone(installed):
    program = installed.folder / "cxx"
    flags = installed.pkg_config("--cflags", "--libs")
    output(*compiler("CXX", "c++"), "-std=c++17", installed.folder / "user.cpp", *flags, "-o", program)
    installed.program_says_its_version(program)


def test_cmake_finds_the_package(installed):
    need("cmake")
    source, build = installed.folder / "cmake", installed.folder / "cmake-build"
    source.mkdir()
    shutil.copy(installed.folder / "user.c", source)
    (source / "CMakeLists.txt").write_text(CMAKE_LISTS.format(version=VERSION))
    output("cmake", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={installed.prefix}")
    output("cmake", "--build", build)
    programs = [build / name for name in ("shared", "static") if (build / name).exists()]
    assert programs
    for program in programs:
        installed.program_says_its_version(program)


def test_destdir_is_not_written_into_any_file(installed):
    stage = installed.folder / "stage"
    make("install", f"DESTDIR={stage}", "PREFIX=/usr")
    assert (stage / f"usr/lib/libbruit.so.{VERSION}").exists()
    for path in stage.rglob("*"):
        if path.suffix in (".pc", ".cmake", ".h", ".hpp"):
            assert str(stage) not in path.read_text(), path


def test_uninstall_leaves_no_file(installed):
    make("uninstall", f"PREFIX={installed.prefix}")
    left = [path for path in installed.prefix.rglob("*") if not path.is_dir()]
    assert not left, left


def main():
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    with tempfile.TemporaryDirectory() as folder:
        installed = Installed(pathlib.Path(folder))
        for name, test in [item for item in globals().items() if item[0].startswith("test_")]:
            try:
                test(installed)
                word, text = "passed", ""
            except Skip as skip:
                word, text = "skipped", str(skip)
            except AssertionError as error:
                word, text = "failed", str(error)
            counts[word] += 1
            print(f"{name} {word}{': ' + text if text else ''}", flush=True)
    print(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped")
    sys.exit(counts["failed"] > 0)


if __name__ == "__main__":
    main()
