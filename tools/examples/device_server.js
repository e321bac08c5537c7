// A device server in Node: a line of eight elements, 5-bit phases, 4-bit amplitudes, no delay lines.
// Replace what touches `rows` by your machine.
//
// npm install zeromq @msgpack/msgpack
// node device_server.js [tcp://127.0.0.1:5600]    then: twin device check tcp://127.0.0.1:5600 --fresh
"use strict";
const zmq = require("zeromq");
const { encode, decode } = require("@msgpack/msgpack");

const N = 8, SLOTS = 4, LEVELS = 15, STEP = (2 * Math.PI) / 32, CARRIER_HZ = 28e9, NOISE_DB = 5;
const LATENCY_NS = 30000, BUS_NS = 50, SETTLING_NS = 2000;
const INCARNATION = 1 + Math.floor(Math.random() * 2 ** 48);
const BYTES = { b1: 1, i1: 1, i2: 2, i4: 4, i8: 8, u1: 1, u2: 2, u4: 4, u8: 8, f4: 4, f8: 8, c8: 4, c16: 8 };
const rows = new Map(), busy = { transmit: 0, receive: 0 }, lastSeq = new Map();
let samplesSent = 1;

class Misuse extends Error {}

// An array on the wire is [dtype, shape, bytes], little-endian. Times are Numbers here: exact up to 2^53 ns, 104 days.
function array(dtype, shape, flat) {
  const bytes = new Uint8Array(flat.length * BYTES[dtype]), view = new DataView(bytes.buffer);
  flat.forEach((x, k) => {
    if (dtype === "b1") view.setUint8(k, x ? 1 : 0);
    else if (dtype === "i8") view.setBigInt64(8 * k, BigInt(x), true);
    else view.setFloat64(8 * k, x, true); // f8, and c16 as real, imaginary
  });
  return [dtype, shape, bytes];
}

function numbers([dtype, , bytes]) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength), size = BYTES[dtype], flat = [];
  const read = { i1: "getInt8", i2: "getInt16", i4: "getInt32", i8: "getBigInt64", f4: "getFloat32", f8: "getFloat64", c16: "getFloat64" }[dtype];
  if (!read) throw new Misuse(`dtype ${dtype} is not taken here`);
  for (let k = 0; k < bytes.byteLength; k += size) flat.push(Number(view[read](k, true)));
  return flat;
}

const wave = 299792458 / CARRIER_HZ, each = (f) => Array.from({ length: N }, (_, n) => f(n));
const HALF = {
  array: {
    position_m: array("f8", [N, 3], each((n) => [0, ((n - (N - 1) / 2) * wave) / 2, 0]).flat()), columns: N, rows: 1, spacing_m: wave / 2,
    rotation: array("f8", [3, 3], [1, 0, 0, 0, 1, 0, 0, 0, 1]), origin_m: array("f8", [3], [0, 0, 0]), element_gain_dbi: 0, element_exponent: 0,
  },
  network: {
    wired: array("b1", [1, N], each(() => true)), line: array("i8", [N], each(() => -1)), lines: 0, delay_bits: 0, delay_range_s: 1e-12,
    phase_bits: 5, amplitude_bits: 4, loss_db: 0,
  },
  memory_slots: SLOTS,
};
const SPEC = {
  name: "example in node", carrier_hz: CARRIER_HZ, transmit: HALF, receive: HALF, transmit_power_w: 0.2, noise_figure_db: NOISE_DB, isolation_db: Infinity,
  command_latency_ns: LATENCY_NS, bus_ns_per_element: BUS_NS, settling_ns: SETTLING_NS, select_ns: 50, simulated: false,
};

function slotsOf(triple) {
  const slots = numbers(triple);
  if (!slots.every((s) => s >= 0 && s < SLOTS)) throw new Misuse(`slots ${slots}: must be within 0 .. ${SLOTS - 1}`);
  return slots;
}

function set_beam([beam, at_ns]) {
  if (!(beam.half in busy)) throw new Misuse(`half ${beam.half}: must be transmit or receive`);
  const slots = slotsOf(beam.slot);
  if (new Set(slots).size < slots.length) throw new Misuse(`slots ${slots}: each may be named once`);
  for (const [name, width] of [["delay_s", 0], ["phase_rad", N], ["amplitude", N]]) {
    if (String(beam[name][1]) !== String([slots.length, 1, width])) throw new Misuse(`${name}: has shape ${beam[name][1]}, must be ${[slots.length, 1, width]}`);
    if (!numbers(beam[name]).every(Number.isFinite)) throw new Misuse(`${name}: must be finite`);
  }
  const phase = numbers(beam.phase_rad).map((p) => (((Math.round(p / STEP) % 32) + 32) % 32) * STEP);
  const wanted = numbers(beam.amplitude).map((a) => Math.round(a * LEVELS));
  const clipped = wanted.filter((a) => a < 0 || a > LEVELS).length;
  const amplitude = wanted.map((a) => Math.min(Math.max(a, 0), LEVELS) / LEVELS);
  busy[beam.half] = Math.max(at_ns + LATENCY_NS, busy[beam.half]) + slots.length * N * BUS_NS;
  const effective_ns = busy[beam.half] + SETTLING_NS;
  slots.forEach((slot, k) => { // here a real machine loads its registers, and latches them
    const key = `${beam.half} ${slot}`, kept = (rows.get(key) || []).slice(-15);
    const response = each((n) => amplitude[k * N + n] / Math.sqrt(N)).flatMap((a, n) => [a * Math.cos(phase[k * N + n]), a * Math.sin(phase[k * N + n])]);
    rows.set(key, [...kept, { since: effective_ns, response }]);
  });
  const shape = [slots.length, 1, N];
  const readback = { ...beam, phase_rad: array("f8", shape, phase), amplitude: array("f8", shape, amplitude) };
  return { readback, accepted_ns: at_ns, effective_ns, clipped, uncertainty_ns: 0, fault: "" };
}

function emit(drive) {
  const slots = slotsOf(drive.slot), t_ns = numbers(drive.t_ns), width = drive.frequency_hz[1][0], events = slots.length;
  samplesSent = drive.samples ? drive.samples[1][2] : width;
  const flat = slots.flatMap((slot, k) => {
    const row = (rows.get(`transmit ${slot}`) || []).filter((r) => r.since <= t_ns[k]).pop();
    return Array(width).fill(row ? row.response : Array(2 * N).fill(0)).flat();
  });
  return { source: array("i8", [events], slots.map(() => -1)), drive, row: array("i8", [events], slots.map((_, k) => k)), response: array("c16", [events, width, N, 1], flat) };
}

function receive([, listen]) {
  const noise_w = 1.380649e-23 * 290 * listen.bandwidth_hz * 10 ** (NOISE_DB / 10), shape = [listen.t_ns[1][0], 1, samplesSent];
  const normal = () => Math.sqrt(-Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random()) * Math.sqrt(noise_w);
  const flat = Array.from({ length: 2 * shape[0] * shape[2] }, normal); // here a real machine reads its converters
  return { t_ns: listen.t_ns, slot: listen.slot, samples: array("c16", shape, flat), noise_w, dropped_w: 0, overload: null };
}

const VERBS = { hello: () => SPEC.name, ping: () => undefined, spec: () => SPEC, set_beam, emit, receive };

// What a question gets: [kind, seq, payload]; nothing for a repeated question.
function answer(peer, frames) {
  let protocol, version, kind, seq, rest;
  try {
    if (frames.length !== 2) throw new Error();
    [protocol, version, kind, seq, ...rest] = decode(frames[0]);
    if (!Array.isArray(version) || !Number.isInteger(seq)) throw new Error();
  } catch {
    return ["fault", -1, "this is not a header and a payload"];
  }
  if (protocol !== "isac-twin" || version[0] !== 1) return ["fault", seq, `refused: this side speaks isac-twin 1.0, not ${protocol} ${version}`];
  if (rest[2] && rest[2] !== INCARNATION) return ["anew", seq, "was started anew; what it held before is lost"];
  if (seq <= (lastSeq.get(peer) || 0)) return undefined;
  lastSeq.set(peer, seq);
  if (!Object.hasOwn(VERBS, kind)) return ["misuse", seq, `question '${kind}': a device answers ${Object.keys(VERBS)}`];
  try {
    const done = VERBS[kind](frames[1].length ? decode(frames[1]) : null);
    return ["answer", seq, done === undefined ? "" : encode(done)];
  } catch (error) {
    return [error instanceof Misuse ? "misuse" : "fault", seq, `${kind}: ${error.message}`];
  }
}

async function main() {
  const socket = new zmq.Router();
  await socket.bind(process.argv[2] || "tcp://127.0.0.1:5600");
  console.log(socket.lastEndpoint);
  const clock = () => process.hrtime.bigint();
  for await (const [peer, ...frames] of socket) {
    const received = clock(), said = answer(peer.toString("hex"), frames);
    if (said === undefined) continue;
    const header = encode(["isac-twin", [1, 0], said[0], said[1], received, clock(), BigInt(INCARNATION)], { useBigInt64: true });
    await socket.send([peer, header, said[2]]);
  }
}
main();
