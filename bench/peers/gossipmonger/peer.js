// gossipmonger: every node has a map of its own, which the others read. A broadcast is a key that nobody had before.
// The works are those of bench/peers/work, with the same words and figures.
"use strict";

const { spawn } = require("child_process");
const fs = require("fs");
const net = require("net");
const Gossipmonger = require("gossipmonger");

const PATIENCE = 60;
const WINDOW = 1000;
// Seconds: what has not moved for so long is lost.
const STILL = 2.5;
const AFTER = 6;

const HEADER = 16;
const NOISE = 4 << 20;
const STEP = 65521;
const LETTERS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
const NOISES = Buffer.alloc(NOISE, 0).map(() => LETTERS.charCodeAt(Math.floor(64 * Math.random()))).toString("latin1");

const ABOUT = {
  name: "gossipmonger", sealed: "", joined: "each lists all",
  broadcast: "a new key of the sender's, told by the receivers' 'update'",
  reliable: "", best_effort: "", request: "", detects: true,
  variants: { default: "gossip every 1 s, phi 8, 5 deltas a gossip" },
};

const now = () => Number(process.hrtime.bigint()) / 1e9;
const sleep = (seconds) => new Promise((done) => setTimeout(done, 1e3 * seconds));
const hex = (number) => number.toString(16).padStart(8, "0");

function noise(number, size) {
  const from = (number * STEP) % (NOISE - STEP);
  return NOISES.slice(from, from + size - HEADER);
}

const message = (origin, number, size) => hex(number) + hex(origin) + noise(number, size);

// Deliveries to all nodes together.
class Tally {
  constructor() {
    Object.assign(this, { count: 0, again: 0, last: now(), awaited: Infinity, tell: () => {} });
  }

  add() {
    this.last = now();
    if (++this.count >= this.awaited) this.tell();
  }

  // When there were so many; or nothing, where the count has stood still for so long, or the end is over.
  async reach(wanted, patience, end) {
    this.awaited = wanted;
    while (this.count < wanted) {
      const seen = this.count;
      let timer = null;
      await new Promise((done) => {
        this.tell = done;
        timer = setTimeout(done, 1e3 * Math.max(0, Math.min(patience, end - now())));
      });
      clearTimeout(timer);
      if (this.count < wanted && (this.count === seen || now() >= end)) return null;
    }
    return this.last;
  }
}

class Heard {
  constructor(node, tally) {
    Object.assign(this, { node, tally, numbers: new Set() });
  }

  take(data) {
    const [number, origin] = [parseInt(data.slice(0, 8), 16), parseInt(data.slice(8, HEADER), 16)];
    if (origin === this.node || data.slice(HEADER) !== noise(number, data.length)) return;
    if (this.numbers.has(number)) {
      this.tally.again += 1;
      return;
    }
    this.numbers.add(number);
    this.tally.add();
  }
}

// Free a moment ago.
const freePort = () =>
  new Promise((done) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => done(port));
    });
  });

class Node {
  static async start(name, seed, heard) {
    const node = new Node();
    const transport = { host: "127.0.0.1", port: await freePort() };
    const seeds = seed ? [{ id: seed.split("@")[0], transport: { host: "127.0.0.1", port: Number(seed.split("@")[1]) } }] : [];
    node.own = new Gossipmonger({ id: name, transport }, { seeds });
    node.address = `${name}@${transport.port}`;
    // Who cannot be reached is found dead in time.
    node.own.on("error", () => {});
    node.own.on("update", (peer, key, value) => heard.take(value));
    await new Promise((done) => node.own.transport.listen(done));
    node.own.gossip();
    return node;
  }

  live() {
    return 1 + this.own.storage.livePeers().length;
  }

  broadcast(data) {
    this.own.update(data.slice(0, HEADER), data);
  }
}

class Cluster {
  static async form(count, settle) {
    const cluster = Object.assign(new Cluster(), { nodes: [], tally: new Tally() });
    const began = now();
    for (let i = 0; i < count; i++) {
      const seed = i ? cluster.nodes[0].address : "";
      cluster.nodes.push(await Node.start(`n${i}`, seed, new Heard(i, cluster.tally)));
    }
    await cluster.allList(count, began + PATIENCE);
    cluster.took = now() - began;
    await sleep(settle);
    return cluster;
  }

  async allList(count, end) {
    for (const [i, node] of this.nodes.entries()) {
      while (node.live() !== count) {
        if (now() > end) {
          const ready = this.nodes.filter((other) => other.live() === count).length;
          throw new Error(`${ready} of ${this.nodes.length} were ready after ${PATIENCE} s; n${i} listed ${node.live()}`);
        }
        await sleep(0.001);
      }
    }
  }
}

class Usage {
  constructor() {
    Object.assign(this, { began: now(), cpu: process.cpuUsage(), wire: loopback() });
  }

  cpuSeconds() {
    const { user, system } = process.cpuUsage(this.cpu);
    return (user + system) / 1e6;
  }

  crossed() {
    const after = loopback();
    return [after[0] - this.wire[0], after[1] - this.wire[1]];
  }
}

function loopback() {
  const line = fs.readFileSync("/proc/self/net/dev", "utf8").split("\n").find((text) => text.trim().startsWith("lo:"));
  return line ? line.split(":")[1].trim().split(/\s+/).slice(0, 2).map(Number) : [0, 0];
}

// Memory of this process: all that is resident, and what of it are no pages of files.
function residentKb() {
  const status = fs.readFileSync("/proc/self/status", "utf8");
  return ["VmRSS", "RssAnon"].map((field) => Number(status.match(new RegExp(`^${field}:\\s+(\\d+)`, "m"))[1]));
}

async function join(o) {
  const usage = new Usage();
  const cluster = await Cluster.form(o.nodes, 0);
  return { seconds: cluster.took, cpu_ms_a_node: (1e3 * usage.cpuSeconds()) / o.nodes };
}

async function broadcast(o) {
  const cluster = await Cluster.form(o.nodes, o.settle);
  const figures = {};
  const said = await latencies(cluster, o, figures);
  await flood(cluster, o, said, figures);
  return figures;
}

// One at a time, by turns: until the last has heard it. Returns how many were said.
async function latencies(cluster, o, figures) {
  const [others, times, end] = [o.nodes - 1, [], now() + o.seconds];
  let [said, missed] = [0, 0];
  while (now() < end && said < 200) {
    const [origin, before, began] = [said % o.nodes, cluster.tally.count, now()];
    cluster.nodes[origin].broadcast(message(origin, said++, o.bytes));
    const reached = await cluster.tally.reach(before + others, 2 * STILL, began + AFTER);
    if (reached === null) missed += before + others - cluster.tally.count;
    else times.push(1e3 * (reached - began));
  }
  times.sort((a, b) => a - b);
  Object.assign(figures, { said_singly: said, lost_singly_percent: (100 * missed) / (said * others) });
  if (times.length) Object.assign(figures, { p50_ms: times[times.length >> 1], worst_ms: times[times.length - 1] });
  return said;
}

// As fast as the node takes it, with at most a window under way.
async function flow(cluster, o, first, atMost) {
  const [others, tally, usage] = [cluster.nodes.length - 1, cluster.tally, new Usage()];
  const [before, end] = [tally.count, usage.began + o.seconds];
  let [said, givenUp] = [0, 0];
  while (said < atMost && now() < end) {
    cluster.nodes[0].broadcast(message(0, first + said++, o.bytes));
    // Others of this process have their turn.
    if (said % 16 === 0) await new Promise(setImmediate);
    const wanted = before + Math.max(0, said - WINDOW) * others - givenUp;
    if (tally.count < wanted && (await tally.reach(wanted, STILL, end)) === null && now() < end) {
      givenUp = said * others - (tally.count - before);
    }
  }
  await tally.reach(before + said * others, STILL, now() + AFTER);
  return { said, heard: tally.count - before, seconds: tally.last - usage.began, usage };
}

async function flood(cluster, o, first, figures) {
  const { said, heard, seconds, usage } = await flow(cluster, o, first, Infinity);
  const [others, [sizes, packets]] = [o.nodes - 1, usage.crossed()];
  Object.assign(figures, { said, lost_percent: 100 * (1 - heard / (said * others)) });
  if (!heard) return;
  Object.assign(figures, { per_second: heard / others / seconds, cpu_us: (1e6 * usage.cpuSeconds()) / heard });
  Object.assign(figures, { wire_bytes: sizes / heard, packets: packets / heard, heard_again: cluster.tally.again });
}

async function bulk(o) {
  const cluster = await Cluster.form(o.nodes, o.settle);
  const before = residentKb();
  const { said, heard } = await flow(cluster, o, 0, o.messages);
  const grown = (residentKb()[0] - before[0]) / o.nodes;
  return { heard: heard / (o.nodes - 1), grown_kb_a_node: grown, grown_kb_a_node_after_all: said === o.messages ? grown : null };
}

async function idle(o) {
  const before = residentKb();
  const cluster = await Cluster.form(o.nodes, o.settle);
  const usage = new Usage();
  await sleep(o.seconds);
  const [seconds, [sizes, packets]] = [now() - usage.began, usage.crossed()];
  const [resident, own] = residentKb();
  return {
    cpu_percent: (100 * usage.cpuSeconds()) / seconds / o.nodes,
    wire_bytes: sizes / seconds / o.nodes,
    packets: packets / seconds / o.nodes,
    resident_kb: (resident - before[0]) / cluster.nodes.length,
    own_kb: (own - before[1]) / cluster.nodes.length,
  };
}

// A member is killed, in a process of its own; the others are looked at until they know.
async function detect(o) {
  const cluster = await Cluster.form(o.nodes - 1, 0);
  const [first, all] = [[], []];
  let untold = 0;
  for (let trial = 0; trial < o.trials; trial++) {
    const words = ["member", `seed=${cluster.nodes[0].address}`, `name=victim${trial}`, `nodes=${o.nodes}`];
    const victim = spawn(process.execPath, [__filename, ...words], { stdio: ["pipe", "ignore", "ignore"] });
    let began = now();
    try {
      await cluster.allList(o.nodes, began + PATIENCE);
      await sleep(o.settle + 0.37 * trial);
    } finally {
      began = now();
      victim.kill("SIGKILL");
    }
    const told = new Map();
    while (told.size < cluster.nodes.length && now() < began + PATIENCE) {
      for (const [i, node] of cluster.nodes.entries()) {
        if (!told.has(i) && node.live() < o.nodes) told.set(i, now() - began);
      }
      await sleep(0.01);
    }
    const times = [...told.values()].sort((a, b) => a - b);
    untold += cluster.nodes.length - times.length;
    if (times.length) first.push(times[0]);
    if (times.length === cluster.nodes.length) all.push(times[times.length - 1]);
    if (trial + 1 < o.trials) await cluster.allList(o.nodes - 1, now() + PATIENCE);
  }
  const middle = (times) => (times.length ? times.sort((a, b) => a - b)[times.length >> 1] : null);
  return { first_s: middle(first), all_s: middle(all), worst_s: all.length ? Math.max(...all) : null, untold };
}

// One node, until standard input ends. A line whenever the number of members that it lists has changed.
async function member(o) {
  const node = await Node.start(o.name, o.seed, new Heard(65000, new Tally()));
  console.log(JSON.stringify({ address: node.address }));
  process.stdin.resume().on("end", () => process.exit(0));
  // The first other member is what a cold start waits for.
  for (let listed = 0; ; await sleep(listed < 2 ? 0.001 : 0.005)) {
    if (node.live() !== listed) {
      listed = node.live();
      console.log(JSON.stringify({ live: listed }));
    }
  }
}

async function main() {
  const [work, ...words] = process.argv.slice(2);
  const o = { nodes: 10, bytes: 256, trials: 1, messages: 100000, seconds: 3, settle: 1, seed: "", name: "n0", variant: "" };
  for (const word of words) {
    const [name, value] = word.split("=");
    if (!(name in o)) throw new Error(`no option is called ${name}`);
    o[name] = typeof o[name] === "number" ? Number(value) : value;
  }
  const works = { join, broadcast, bulk, idle, detect };
  if (work === "about") console.log(JSON.stringify(ABOUT));
  else if (work === "member") await member(o);
  else if (work in works) console.log(JSON.stringify({ figures: await works[work](o) }));
  else throw new Error(`no work is called ${work}`);
}

main().then(
  () => process.exit(0),
  (error) => {
    console.log(JSON.stringify({ error: error.message }));
    process.exit(1);
  },
);
