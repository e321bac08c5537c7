// A device server in Node: eight elements in a line, 5-bit phases, 4-bit amplitudes. Replace what touches `rows` by your machine.
//
// npm install zeromq @msgpack/msgpack
// node device_server.js [tcp://127.0.0.1:5600]    then: twin device check tcp://127.0.0.1:5600 --fresh
"use strict";
const zmq = require("zeromq");
const { encode, decode } = require("@msgpack/msgpack");

const N = 8, SLOTS = 4, LEVELS = 15, WORDS = 32, STEP = (2 * Math.PI) / WORDS, NOISE_DB = 5, BORN = Date.now();
const LATENCY_NS = 30000, BUS_NS = 50, SETTLING_NS = 2000, PITCH_M = 299792458 / 28e9 / 2;
const rows = new Map(), busy_ns = { transmit: 0, receive: 0 }, lastSeq = new Map(), heard = { samples: 1 };

// An array on the wire is [dtype, shape, bytes]. Times are Numbers here: exact up to 2^53 ns, 104 days.
const TYPES = { b1: Uint8Array, i1: Int8Array, i4: Int32Array, i8: BigInt64Array, f8: Float64Array, c16: Float64Array };
const array = (dtype, shape, flat) => [dtype, shape, new Uint8Array(TYPES[dtype].from(flat).buffer)];
const numbers = ([dtype, , bytes]) => Array.from(new TYPES[dtype](new Uint8Array(bytes).buffer), Number);
const each = (f) => Array.from({ length: N }, (_, n) => f(n));

const PLACES = { position_m: array("f8", [N, 3], each((n) => [0, (n - (N - 1) / 2) * PITCH_M, 0]).flat()) };
const WIRED = { wired: array("b1", [1, N], each(() => 1)), line: array("i1", [N], each(() => -1)) };
const HALF = { array: PLACES, network: { ...WIRED, phase_bits: 5, amplitude_bits: 4 }, memory_slots: SLOTS };
const TIMES = { command_latency_ns: LATENCY_NS, bus_ns_per_element: BUS_NS, settling_ns: SETTLING_NS };
const POWER = { transmit_power_w: 0.2, noise_figure_db: NOISE_DB, simulated: false };
const SPEC = { name: "example in node", carrier_hz: 28e9, transmit: HALF, receive: HALF, ...POWER, ...TIMES };

function set_beam([beam, at_ns]) {
  const { half, slot, delay_s, phase_rad, amplitude } = beam, [slots, phase, size] = [slot, phase_rad, amplitude].map(numbers);
  const shape = [slots.length, 1, N], shapes = String([delay_s, phase_rad, amplitude].map((told) => told[1]));
  const fit = shapes === String([[slots.length, 1, 0], shape, shape]) && [...phase, ...size].every(Number.isFinite);
  if (!(half in busy_ns && fit && new Set(slots).size === slots.length && slots.every((s) => s >= 0 && s < SLOTS)))
    throw new RangeError(`settings must be finite, slot x 1 x 0 or ${N}; slots within 0 .. ${SLOTS - 1}, each once`);
  const words = phase.map((p) => (((Math.round(p / STEP) % WORDS) + WORDS) % WORDS) * STEP);
  const wanted = size.map((a) => Math.round(a * LEVELS)), levels = wanted.map((a) => Math.min(Math.max(a, 0), LEVELS));
  busy_ns[half] = Math.max(at_ns + LATENCY_NS, busy_ns[half]) + slots.length * N * BUS_NS;
  const effective_ns = busy_ns[half] + SETTLING_NS, taken = levels.map((a) => a / LEVELS);
  slots.forEach((s, k) => { // here a machine loads and latches
    const turned = (n) => [Math.cos(words[n]), Math.sin(words[n])].map((x) => (taken[n] * x) / Math.sqrt(N));
    rows.set(half + s, [...(rows.get(half + s) || []).slice(-15), [effective_ns, each((n) => turned(k * N + n)).flat()]]);
  });
  const readback = { ...beam, phase_rad: array("f8", shape, words), amplitude: array("f8", shape, taken) };
  return { readback, accepted_ns: at_ns, effective_ns, clipped: wanted.filter((a, n) => a !== levels[n]).length };
}

function emit(drive) {
  const [t_ns, slots, width] = [drive.t_ns, drive.slot, drive.frequency_hz].map(numbers), dark = [0, Array(2 * N).fill(0)];
  heard.samples = drive.samples ? drive.samples[1][2] : width.length;
  const inForce = (s, t) => (rows.get("transmit" + s) || []).filter(([since]) => since <= t).pop() || dark;
  const response = slots.flatMap((s, k) => width.flatMap(() => inForce(s, t_ns[k])[1]));
  return { response: array("c16", [slots.length, width.length, N, 1], response) };
}

function receive([, listen]) {
  const noise_w = 1.380649e-23 * 290 * listen.bandwidth_hz * 10 ** (NOISE_DB / 10), shape = [listen.t_ns[1][0], 1, heard.samples];
  const normal = () => Math.sqrt(-noise_w * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
  const samples = Array.from({ length: 2 * shape[0] * shape[2] }, normal); // here a machine reads its converters
  return { samples: array("c16", shape, samples), noise_w };
}

const VERBS = new Map(Object.entries({ hello: () => SPEC.name, ping: () => null, spec: () => SPEC, set_beam, emit, receive }));

// What a question gets: [kind, seq, payload]; nothing for a repeated question.
function answer(peer, head, payload) {
  const [protocol, [major], verb, seq, , , born] = decode(head);
  if (protocol !== "isac-twin" || major !== 1) return ["fault", seq, "refused: this side speaks isac-twin 1.0"];
  if (born !== 0 && born !== BORN) return ["anew", seq, "was started anew; what it held before is lost"];
  if (seq <= (lastSeq.get(peer) || 0)) return undefined;
  lastSeq.set(peer, seq);
  if (!VERBS.has(verb)) return ["misuse", seq, `question '${verb}': a device answers ${[...VERBS.keys()]}`];
  try {
    return ["answer", seq, encode(VERBS.get(verb)(payload.length ? decode(payload) : []))];
  } catch (error) {
    return [error instanceof RangeError || error instanceof TypeError ? "misuse" : "fault", seq, `${verb}: ${error.message}`];
  }
}

async function main() {
  const socket = new zmq.Router(), clock = () => process.hrtime.bigint();
  await socket.bind(process.argv[2] || "tcp://127.0.0.1:5600");
  console.log(socket.lastEndpoint);
  for await (const [peer, ...frames] of socket) {
    const received_ns = clock();
    let said = ["fault", -1, "this is not a header and a payload"];
    try {
      if (frames.length === 2) said = answer(peer.toString("hex"), ...frames);
    } catch {} // a header that is none
    if (said === undefined) continue;
    const header = ["isac-twin", [1, 0], said[0], said[1], received_ns, clock(), BigInt(BORN)];
    await socket.send([peer, encode(header, { useBigInt64: true }), said[2]]);
  }
}
main();
