"""A controller in pyzmq and msgpack alone: claims the plan and gives every data block to the user that is nearest. Replace `better` by yours.

python controller.py [tcp://127.0.0.1:5571]     the twin's control endpoint; the run's clock.mode must be lockstep or paced
"""

import struct
import sys

import msgpack
import zmq

# fmt: off
SEQ = 0


def say(kind, payload):
    """One message: the header, then the payload. `seq` counts what this side says."""
    global SEQ
    SEQ += 1
    socket.send_multipart([msgpack.packb(["isac-twin", [1, 0], kind, SEQ]), payload])


def numbers(triple):
    """An array on the wire is [dtype, shape, bytes], little-endian."""
    return [x[0] for x in struct.iter_unpack({"f8": "<d", "i8": "<q", "b1": "<?"}[triple[0]], triple[2])]


def better(moment):
    """What the built-in chain proposes, but the user believed nearest gets every block."""
    plan, tracks = moment["proposal"]["plan"], moment["belief"]["tracks"]
    state = numbers(tracks["state"])
    range2 = {u: sum(state[6 * k + i] ** 2 for i in range(3)) for k, u in enumerate(numbers(tracks["user"])) if u >= 0}
    users, slots = numbers(plan["user"]), numbers(plan["user_slot"])
    able = [u for u in users if u in range2 and slots[users.index(u)] >= 0]
    if able:
        who = users.index(min(able, key=range2.get))
        blocks, width = plan["served"][1]
        rows = [b >= plan["sensing_blocks"] and w == who for b in range(blocks) for w in range(width)]
        plan["served"] = ["b1", [blocks, width], bytes(rows)]
        slot = [slots[who] if b >= plan["sensing_blocks"] else -1 for b in range(blocks)]
        plan["slot"] = ["i8", [blocks], struct.pack(f"<{blocks}q", *slot)]
    return plan


socket = zmq.Context().socket(zmq.DEALER)
socket.linger = 1000
socket.connect(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5571")
say("claim", msgpack.packb({"name": "nearest", "knobs": ["bs0.plan"], "observe": ["belief", "proposal"], "order": 0}))
answered = 0
while True:
    if not socket.poll(30_000):
        raise SystemExit("the twin is silent")
    head, payload = socket.recv_multipart()
    protocol, version, kind = msgpack.unpackb(head)[:3]
    if kind == "answer":
        print("granted", msgpack.unpackb(payload)["knobs"], flush=True)
    elif kind == "observe":
        moment = msgpack.unpackb(payload)
        say("act", msgpack.packb({"moment": moment["moment"], "plan": better(moment)}))
        answered += 1
    elif kind == "applied":
        by = msgpack.unpackb(payload)["by"]["plan"]
    elif kind == "dropped":
        print(f"{payload.decode()}: {answered} moments answered, the plan was last set by {by}", flush=True)
        break
    elif kind in ("refused", "misuse", "fault"):
        print(kind, payload.decode(), flush=True)
        if kind == "misuse":
            raise SystemExit(1)
