"""Workers that a crowd asks and tells. Each worker carries the tag role=worker, and needs no address of the others.

python fanout.py work w1 127.0.0.1:7001
python fanout.py work w2 127.0.0.1:7002 127.0.0.1:7001
python fanout.py ask 127.0.0.1:7001              how busy is everybody? The least busy one gets the job.
python fanout.py tell 127.0.0.1:7001 pause       to all workers, and whether each has it in its queue
"""

import sys

import bruit

WORKERS = "role=worker"


def work(name, bind, *seeds):
    jobs = []
    with bruit.Node(name, bind=bind, seeds=seeds, meta={"role": "worker"}) as node:

        @node.on_message("load")
        def load(message):
            return str(len(jobs)).encode()

        @node.on_message("job")
        def job(message):
            jobs.append(message.data)
            print(f"{name} does {message.data.decode()}", flush=True)

        @node.on_message("order")
        def order(message):
            print(f"{name} is told to {message.data.decode()}", flush=True)

        print(f"{name} at {node.address}", flush=True)
        sys.stdin.read()


def crowd(seed):
    node = bruit.Node(bind="127.0.0.1:0", seeds=[seed])
    node.start()
    node.wait_for(lambda members: members.tagged(WORKERS), timeout=10)
    return node


def ask(seed):
    with crowd(seed) as node:
        busy = {}
        with node.query(b"", topic="load", tags=WORKERS, timeout=5, relay=1) as answers:
            for reply in answers:
                if reply.error is None:
                    busy[reply.sender] = int(reply.data)
        print(" ".join(f"{name}={count}" for name, count in sorted(busy.items())), flush=True)
        least = min(sorted(busy), key=busy.__getitem__)
        node.send(least, b"the dishes", topic="job", reliable=True)


def tell(seed, words):
    with crowd(seed) as node:
        told = node.send_each(words.encode(), tag=WORKERS, topic="order", reliable=True)
        for name, sent in sorted(told.items()):
            print(name, "has it" if sent.error is None else sent.error, flush=True)


if __name__ == "__main__":
    what = {"work": work, "ask": ask, "tell": tell}.get(sys.argv[1] if len(sys.argv) > 1 else "")
    if what is None:
        sys.exit(__doc__)
    what(*sys.argv[2:])
