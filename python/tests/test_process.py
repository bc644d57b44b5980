"""A guest in somebody's process: its exit, its signals, its forks, its interpreters."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys

import bruit
import pytest
from conftest import WARNINGS, until

NODE = """
    import os, signal, sys, threading, time
    import bruit

    def alone(name=None, **options):
        return bruit.Node(name, **{"bind": "127.0.0.1:0", "profile": "local", **options})

    def provoke(node):
        node.join(["127.0.0.1:1"], timeout=0)
"""


# Exit.


def test_exit_with_a_running_node(script):
    assert script(NODE + "    node = alone().start(); print('end')").succeed() == "end\n"


def test_exit_with_a_running_node_that_nobody_holds(script):
    program = """
    import warnings
    warnings.simplefilter("ignore", ResourceWarning)
    alone().start(); print("end")
    """
    assert script(NODE + program).succeed() == "end\n"


def test_exit_with_a_callback_that_runs_for_ever(script):
    program = """
    inside = threading.Event()
    node = alone().start()

    @node.on_event
    def stuck(event):
        inside.set()
        while True:
            time.sleep(0.01)

    provoke(node)
    inside.wait(10)
    print("end")
    """
    assert script(NODE + program).succeed() == "end\n"


def test_exit_while_daemon_threads_wait_in_the_library(script):
    program = """
    node = alone().start()
    waits = [
        lambda: list(node.events()),
        lambda: node.wait_for(5),
        lambda: node.join(["127.0.0.1:1"]),
        lambda: [event for event in node.events(timeout=0.001) for _ in iter(int, 1)],
    ]

    begun = threading.Semaphore(0)

    def forgive(wait):
        begun.release()
        try:
            wait()
        except bruit.BruitError:
            pass

    def asleep(thread):
        with open(f"/proc/self/task/{thread.native_id}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] == "S"

    threads = [threading.Thread(target=forgive, args=(wait,), daemon=True) for wait in waits * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        begun.acquire()
    # The fourth kind ends, or never waits at all.
    while not all(asleep(thread) for number, thread in enumerate(threads) if number % 4 in (0, 1)):
        time.sleep(0.001)
    print("end")
    """
    assert script(NODE + program).succeed() == "end\n"


def test_exit_by_an_exception_and_by_sys_exit(script):
    code, _, errors = script(NODE + "    node = alone().start(); raise LookupError('mine')").finish()
    assert code == 1 and "LookupError: mine" in errors and "panicked" not in errors
    assert script(NODE + "    node = alone().start(); sys.exit(3)").finish()[0] == 3


def test_exit_while_logging_everything(script):
    program = """
    import logging
    logging.basicConfig(level=1, stream=sys.stdout)
    nodes = [alone(log_level=1).start() for _ in range(3)]
    for node in nodes:
        node.join([other.address for other in nodes])
    """
    assert "bruit" in script(NODE + program).succeed()


def test_nothing_is_written_to_the_standard_streams(script):
    program = """
    with alone() as a, alone(seeds=[a.address]) as b:
        a.wait_for(2, timeout=10)
        b.wait_for(2, timeout=10)
        try:
            a.join(["nowhere.invalid:1"], timeout=1)
        except bruit.BruitError:
            pass
    """
    assert script(NODE + program).succeed() == ""


# Ctrl-C.


@pytest.mark.parametrize(
    "wait",
    [
        "list(node.events())",
        "node.events(kinds=bruit.MemberEvent).next()",
        "node.wait_for(5)",
        "node.wait_for(5, timeout=60)",
        "node.join([silent], timeout=60)",
        "node.stop(timeout=60)",
    ],
)
def test_ctrl_c_ends_every_wait(script, wait):
    program = f"""
    import socket
    deaf = socket.socket(); deaf.bind(("127.0.0.1", 0)); deaf.listen()
    silent = "127.0.0.1:%d" % deaf.getsockname()[1]
    node = alone(join_timeout="60s").start()
    if {"stop" in wait}:
        inside = threading.Event()

        @node.on_event
        def slow(event):
            inside.set()
            time.sleep(30)

        provoke(node)
        inside.wait(10)
    try:
        print("ready")
        {wait}
    except KeyboardInterrupt:
        print("interrupted")
    deaf.close()
    """
    waiting = script(NODE + program)
    waiting.expect("ready")
    waiting.until_it_waits()
    waiting.send(signal.SIGINT)
    # By itself the wait would not end before the patience of this does.
    waiting.expect("interrupted", timeout=20)
    waiting.succeed()


def test_ctrl_c_in_a_with_block_stops_at_once(script):
    program = """
    with alone() as node:
        print("ready")
        for event in node.events():
            pass
    """
    waiting = script(NODE + program)
    waiting.expect("ready")
    waiting.send(signal.SIGINT)
    code, _, errors = waiting.finish()
    assert code in (-signal.SIGINT, 130, 1) and errors.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_in_asyncio(script):
    program = """
    import asyncio, bruit.aio

    async def main():
        async with bruit.aio.Node(bind="127.0.0.1:0", profile="local") as node:
            print("ready")
            try:
                async for event in node.events():
                    pass
            finally:
                print("leaving")

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    """
    waiting = script(NODE + program)
    waiting.expect("ready")
    waiting.until_it_waits()
    waiting.send(signal.SIGINT)
    waiting.expect("interrupted")
    waiting.succeed()


SLOW_LOOKUP = """
#define _GNU_SOURCE
#include <netdb.h>
#include <unistd.h>
int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found)
{
    (void)node, (void)service, (void)hints, (void)found;
    sleep(60);
    return EAI_NONAME;
}
"""


@pytest.fixture
def slow_lookup(tmp_path, monkeypatch):
    """In programs that are started now the look-up of a host name takes a minute."""
    compiler = os.environ.get("CC", "cc").split()
    if shutil.which(compiler[0]) is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "lookup.c", tmp_path / "lookup.so"
    source.write_text(SLOW_LOOKUP)
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", library, source], check=True, timeout=50)
    monkeypatch.setenv("LD_PRELOAD", str(library))


def test_ctrl_c_ends_a_start_that_looks_up_a_name(script, slow_lookup):
    program = """
    node = alone(advertise="somewhere.invalid:7")
    try:
        print("ready")
        node.start()
    except KeyboardInterrupt:
        print("interrupted", node.state)
    """
    waiting = script(NODE + program)
    waiting.expect("ready")
    until(lambda: "bruit-wait" in waiting.threads())
    waiting.until_it_waits()
    waiting.send(signal.SIGINT)
    assert waiting.expect("interrupted") == "stopped"
    waiting.succeed()


def test_a_start_that_looks_up_a_name_does_not_block_the_loop(script, slow_lookup):
    program = """
    import asyncio, bruit.aio

    async def main():
        node = bruit.aio.Node(bind="127.0.0.1:0", advertise="somewhere.invalid:7")
        starting = asyncio.create_task(node.__aenter__())
        for _ in range(20):
            await asyncio.sleep(0.001)
        print(starting.done(), node.state)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        print(starting.cancelled(), node.state)

    asyncio.run(main())
    """
    assert script(NODE + program).succeed() == "False new\nTrue stopped\n"


def test_a_signal_handler_runs_on_the_main_thread_during_a_wait(script):
    program = """
    node = alone().start()
    def handler(number, frame):
        print("handled", threading.current_thread() is threading.main_thread())
    signal.signal(signal.SIGUSR1, handler)
    node.on_event(lambda event: None)
    stream = node.events(kinds=bruit.MemberEvent, timeout=60)
    signal.signal(signal.SIGUSR2, lambda *_: stream.close())
    print("ready")
    print(list(stream))
    """
    waiting = script(NODE + program)
    waiting.expect("ready")
    waiting.until_it_waits()
    waiting.send(signal.SIGUSR1)
    assert waiting.expect("handled") == "True"
    waiting.send(signal.SIGUSR2)
    assert waiting.succeed().endswith("[]\n")


# Fork.

CHILD = """
    node = alone("parent").start()
    subscription = node.on_event(lambda event: None)
    stream = node.events()

    def check():
        calls = [
            lambda: node.name, lambda: node.address, lambda: node.state, lambda: node.view, lambda: node.members(),
            lambda: node.local, lambda: node.member("parent"), lambda: node.stats(), lambda: node.set("nacks", True),
            lambda: node.meta.update(a="b"), lambda: dict(node.meta), lambda: node.start(), lambda: node.join("127.0.0.1:1"),
            lambda: node.leave(), lambda: node.stop(), lambda: node.stop(0), lambda: node.wait_for(1),
            lambda: node.events(), lambda: node.on_event(print), lambda: list(stream), lambda: stream.next(0),
            lambda: stream.ended, lambda: node.__enter__(),
        ]
        for number, call in enumerate(calls):
            try:
                call()
            except bruit.ForkedError as error:
                assert isinstance(error, RuntimeError)
            else:
                raise AssertionError(f"call {number} worked in a forked child")
        repr(node), subscription.cancel(), stream.close()
        print("checked", flush=True)
"""


def test_a_forked_child_gets_forked_error_and_ends(script):
    program = """
    child = os.fork()
    if child == 0:
        check()
        sys.exit(7)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("child", code)
    assert node.state == "running" and node.members()
    node.stop()
    """
    assert script(NODE + CHILD + program).succeed() == "checked\nchild 7\n"


def test_a_forked_child_may_delete_what_it_inherited(script):
    program = """
    import gc
    child = os.fork()
    if child == 0:
        del node, subscription, stream, check
        gc.collect()
        print("deleted", flush=True)
        sys.exit(0)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    print(node.state, len(node.members()))
    """
    assert script(NODE + CHILD + program).succeed() == "deleted\nchild 0\nrunning 1\n"


def test_a_forked_child_may_make_its_own_node(script):
    program = """
    child = os.fork()
    if child == 0:
        with alone("child", seeds=[os.environ["SEED"]]) as mine:
            heard = []
            mine.on_event(heard.append)
            mine.wait_for(2, timeout=15)
        sys.exit(0)
    node.wait_for(lambda members: "child" in members and members.get("child").state == "left", timeout=20)
    print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert script(NODE + CHILD + "    os.environ['SEED'] = node.address" + program).succeed(40) == "child 0\n"


def test_a_fork_inside_a_callback_and_beside_busy_threads(script):
    program = """
    import logging
    logging.basicConfig(level=1, stream=open(os.devnull, "w"))
    node = alone("busy", log_level=1).start()
    stream = node.events()
    threads = [threading.Thread(target=list, args=(stream,), daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    codes = []

    @node.on_event(kinds=bruit.JoinDone)
    def fork(event):
        if len(codes) < 10:
            child = os.fork()
            if child == 0:
                try:
                    node.members()
                except bruit.ForkedError:
                    os._exit(0)
                os._exit(1)
            codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            provoke(node)

    provoke(node)
    while len(codes) < 10:
        time.sleep(0.01)
    node.stop()
    print(codes)
    """
    assert script(NODE + program).succeed(40) == f"{[0] * 10}\n"


def test_children_of_a_busy_process_may_make_their_own_nodes(script):
    """Whatever the threads of the parent were doing, or waiting for: nothing of it may matter in the child."""
    program = """
    busy = [alone(f"busy-{number}").start() for number in range(4)]
    for node in busy:
        node.on_event(lambda event: None)
        for _ in range(4):
            threading.Thread(target=list, args=(node.events(),), daemon=True).start()
    seed = busy[0].address
    codes = []
    for turn in range(6):
        children = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    with alone(seeds=[seed]) as mine:
                        mine.on_event(lambda event: None)
                        mine.wait_for(2, timeout=15)
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(codes)
    """
    assert script(NODE + program).succeed(50) == f"{[0] * 18}\n"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(script, tmp_path, method):
    program = f"""
import multiprocessing, os, sys
import bruit

def work(address, queue):
    name = f"worker-{{os.getpid()}}"
    with bruit.Node(name, bind="127.0.0.1:0", profile="local", seeds=[address]) as mine:
        members = mine.wait_for(2, timeout=20)
        queue.put((name, pickle_members(members)))

def pickle_members(members):
    return [member for member in members]

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    with bruit.Node("parent", bind="127.0.0.1:0", profile="local") as node:
        queue = context.Queue()
        workers = [context.Process(target=work, args=(node.address, queue)) for _ in range(2)]
        for worker in workers:
            worker.start()
        found = [queue.get(timeout=30) for _ in workers]
        for worker in workers:
            worker.join(20)
            assert worker.exitcode == 0, worker.exitcode
        assert all(any(member == node.local for member in members) for _, members in found), found
        print(sorted(name for name, _ in found) == sorted(f"worker-{{worker.pid}}" for worker in workers))
"""
    path = tmp_path / "program.py"
    path.write_text(program)
    done = subprocess.run([sys.executable, *WARNINGS, str(path)], capture_output=True, text=True, timeout=50, cwd=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_prefork_server_whose_node_was_made_before_the_fork(script):
    """As gunicorn --preload does it: made in the parent, started in each of three workers."""
    program = """
    import logging
    seed = alone("seed").start()
    node = alone(seeds=[seed.address], meta={"app": "1"})
    node.meta["made"] = "early"
    heard, logged = [], set()
    node.on_event(heard.append)

    class Names(logging.Handler):
        def emit(self, record):
            logged.add(record.bruit_node)

    logging.getLogger("bruit").setLevel(logging.INFO)
    logging.getLogger("bruit").addHandler(Names())
    workers = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            try:
                with node:
                    node.meta["worker"] = str(number)
                    node.wait_for(4, timeout=20)
                    assert dict(node.local.meta) == {"app": "1", "made": "early", "worker": str(number)}, node.local.meta
                    seen = node.wait_for(lambda members: len(members.tagged("worker")) == 3, timeout=20)
                    assert str(os.getpid()) in node.name, node.name
                    assert f"bruit-py {node.name}" in [thread.name for thread in threading.enumerate()]
                    while not any(isinstance(event, bruit.MemberJoined) for event in heard) or node.name not in logged:
                        time.sleep(0.005)
                    # Until all have seen all.
                    node.meta["seen"] = "yes"
                    node.wait_for(lambda members: len(members.tagged("seen=yes")) == 3 or len(members.alive) < 4, timeout=20)
            except BaseException as error:
                print("worker", number, repr(error), flush=True)
                os._exit(1)
            os._exit(0)
        workers.append(child)
    seed.wait_for(4, timeout=20)
    print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in workers])
    assert node.state == "new"
    """
    assert script(NODE + program).succeed(50) == "[0, 0, 0]\n"


@pytest.mark.skipif(importlib.util.find_spec("gunicorn") is None, reason="gunicorn is not installed")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("options", [["--preload"], []], ids=["preload", "lazy"])
def test_gunicorn(tmp_path, options):
    """Real workers: the node is made when the application is loaded, and started after the fork."""
    (tmp_path / "app.py").write_text(
        "import os, bruit\n"
        "node = bruit.Node(bind='127.0.0.1:0', profile='local', seeds=[os.environ['SEED']])\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [str(len(node.members().alive)).encode()]\n"
    )
    (tmp_path / "settings.py").write_text(
        "bind = 'unix:app.sock'\nworkers = 3\n"
        "def post_worker_init(worker):\n    import app\n    app.node.start()\n"
        "def worker_exit(server, worker):\n    import app\n    app.node.leave(timeout=5)\n    app.node.stop()\n"
    )
    with bruit.Node("seed", bind="127.0.0.1:0", profile="local") as seed:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options, "-c", "settings.py", "app:app"],
            cwd=tmp_path,
            env={**os.environ, "SEED": seed.address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            seed.wait_for(4, timeout=30)
        finally:
            server.send_signal(signal.SIGTERM)
            said, _ = server.communicate(timeout=30)
        assert server.returncode == 0, said
        assert "Traceback" not in said, said
        assert {member.state for member in seed.members() if member != seed.local} == {bruit.MemberState.LEFT}


# Interpreters.


INTERPRETERS = """
    import sys
    try:
        import _interpreters as interpreters
    except ImportError:
        try:
            import _xxsubinterpreters as interpreters
        except ImportError:
            print("none here")
            sys.exit()
    source = "try:\\n import bruit\\nexcept ImportError as error:\\n print(error)\\nelse:\\n print('imported')"

    def try_others():
        for options in ((), ("legacy",)):
            try:
                one = interpreters.create(*options)
            except (TypeError, ValueError):
                continue
            run = getattr(interpreters, "exec", None) or interpreters.run_string
            run(one, source)
            interpreters.destroy(one)
"""


@pytest.mark.parametrize("order", ["main first", "main last"])
def test_a_subinterpreter_gets_a_clear_import_error(script, order):
    """And it leaves nothing behind that the main interpreter would then use."""
    program = f"""
    if {order == "main first"}:
        import bruit
    try_others()
    import bruit, gc
    with bruit.Node("a", bind="127.0.0.1:0", profile="local") as node:
        members = node.members()
        assert isinstance(members, bruit.Members) and isinstance(node.local, bruit.Member)
        gc.collect()
        print("main", bruit.Member("b") == bruit.Member("b"), members.local.name)
    """
    out = script(INTERPRETERS + program).succeed()
    if "none here" not in out:
        assert "subinterpreter" in out and "imported" not in out
        assert out.endswith("main True a\n")
