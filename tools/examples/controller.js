// A controller in Node: claims the plan and gives every data block to the users in turn, four blocks each. Replace `better` by yours.
//
// npm install zeromq @msgpack/msgpack
// node controller.js [tcp://127.0.0.1:5571]     the twin's control endpoint; the run's clock.mode must be lockstep or paced
"use strict";
const zmq = require("zeromq");
const { encode, decode } = require("@msgpack/msgpack");

// Times are Numbers here: exact up to 2^53 ns, 104 days. An array on the wire is [dtype, shape, bytes], little-endian.
function integers([, , bytes]) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.byteLength / 8 }, (_, k) => Number(view.getBigInt64(8 * k, true)));
}

function int64(flat) {
  const bytes = new Uint8Array(8 * flat.length), view = new DataView(bytes.buffer);
  flat.forEach((x, k) => view.setBigInt64(8 * k, BigInt(x), true));
  return ["i8", [flat.length], bytes];
}

function better(moment) {
  const plan = moment.proposal.plan; // what the built-in chain would do
  const slots = integers(plan.user_slot), able = slots.flatMap((s, u) => (s >= 0 ? [u] : []));
  if (!able.length) return plan;
  const [blocks, width] = plan.served[1], served = new Uint8Array(blocks * width), slot = [];
  for (let b = 0; b < blocks; b++) {
    const who = able[Math.floor(b / 4) % able.length];
    if (b >= plan.sensing_blocks) served[b * width + who] = 1;
    slot.push(b >= plan.sensing_blocks ? slots[who] : -1);
  }
  return { ...plan, served: ["b1", [blocks, width], served], slot: int64(slot) };
}

async function main() {
  const socket = new zmq.Dealer({ linger: 1000 });
  socket.connect(process.argv[2] || "tcp://127.0.0.1:5571");
  let seq = 0, answered = 0, by = "nobody";
  const say = (kind, value) => socket.send([encode(["isac-twin", [1, 0], kind, ++seq]), encode(value)]);
  await say("claim", { name: "turns", knobs: ["bs0.plan"], observe: ["proposal"], order: 0 });
  for await (const [head, payload] of socket) {
    const kind = decode(head)[2], text = () => Buffer.from(payload).toString();
    if (kind === "answer") console.log("granted", decode(payload).knobs.join());
    else if (kind === "observe") {
      const moment = decode(payload);
      await say("act", { moment: moment.moment, plan: better(moment) });
      answered++;
    } else if (kind === "applied") by = decode(payload).by.plan;
    else if (kind === "dropped") {
      console.log(`${text()}: ${answered} moments answered, the plan was last set by ${by}`);
      break;
    } else if (["refused", "misuse", "fault"].includes(kind)) {
      console.log(kind, text());
      if (kind === "misuse") process.exitCode = 1;
      if (kind === "misuse") break;
    }
  }
  socket.close();
}
main();
