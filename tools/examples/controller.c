/* A controller in C: claims the plan and switches the last user's blocks off. Replace `better` by yours.
 *
 * apt install libzmq3-dev libmsgpack-dev
 * cc -O2 -o controller controller.c -lzmq -lmsgpackc
 * ./controller [tcp://127.0.0.1:5571]     the twin's control endpoint; the run's clock.mode must be lockstep or paced
 */
#include <msgpack.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static void *sock;
static uint64_t seq;

static void text(msgpack_packer *to, const char *s) {
  msgpack_pack_str(to, strlen(s));
  msgpack_pack_str_body(to, s, strlen(s));
}

/* One message: the header [protocol, [major, minor], kind, seq], then the payload. */
static void say(const char *kind, const msgpack_sbuffer *payload) {
  msgpack_sbuffer head;
  msgpack_packer to;
  msgpack_sbuffer_init(&head);
  msgpack_packer_init(&to, &head, msgpack_sbuffer_write);
  msgpack_pack_array(&to, 4);
  text(&to, "isac-twin");
  msgpack_pack_array(&to, 2);
  msgpack_pack_uint64(&to, 1);
  msgpack_pack_uint64(&to, 0);
  text(&to, kind);
  msgpack_pack_uint64(&to, ++seq);
  zmq_send(sock, head.data, head.size, ZMQ_SNDMORE);
  zmq_send(sock, payload->data, payload->size, 0);
  msgpack_sbuffer_destroy(&head);
}

/* The value of a key in a map, or NULL. */
static const msgpack_object *at(const msgpack_object *map, const char *key) {
  if (!map || map->type != MSGPACK_OBJECT_MAP) return NULL;
  for (uint32_t i = 0; i < map->via.map.size; i++) {
    const msgpack_object_kv *kv = &map->via.map.ptr[i];
    if (kv->key.type == MSGPACK_OBJECT_STR && kv->key.via.str.size == strlen(key) && !memcmp(kv->key.via.str.ptr, key, strlen(key)))
      return &kv->val;
  }
  return NULL;
}

/* The proposed plan without the blocks of its last user; an array is [dtype, shape, bytes]. */
static void better(msgpack_packer *to, const msgpack_object *plan) {
  msgpack_pack_map(to, plan->via.map.size);
  for (uint32_t i = 0; i < plan->via.map.size; i++) {
    const msgpack_object_kv *kv = &plan->via.map.ptr[i];
    msgpack_pack_object(to, kv->key);
    if (at(plan, "served") == &kv->val) {
      const msgpack_object *part = kv->val.via.array.ptr;
      uint64_t users = part[1].via.array.ptr[1].via.u64;
      char *rows = malloc(part[2].via.bin.size + 1);
      memcpy(rows, part[2].via.bin.ptr, part[2].via.bin.size);
      for (uint64_t b = users; users && b <= part[2].via.bin.size; b += users) rows[b - 1] = 0;
      msgpack_pack_array(to, 3);
      msgpack_pack_object(to, part[0]);
      msgpack_pack_object(to, part[1]);
      msgpack_pack_bin(to, part[2].via.bin.size);
      msgpack_pack_bin_body(to, rows, part[2].via.bin.size);
      free(rows);
    } else {
      msgpack_pack_object(to, kv->val);
    }
  }
}

int main(int argc, char **argv) {
  void *context = zmq_ctx_new();
  sock = zmq_socket(context, ZMQ_DEALER);
  if (zmq_connect(sock, argc > 1 ? argv[1] : "tcp://127.0.0.1:5571")) return perror("connect"), 1;

  msgpack_sbuffer out;
  msgpack_packer to;
  msgpack_sbuffer_init(&out);
  msgpack_packer_init(&to, &out, msgpack_sbuffer_write);
  msgpack_pack_map(&to, 3);
  text(&to, "name"), text(&to, "silencer");
  text(&to, "knobs"), msgpack_pack_array(&to, 1), text(&to, "bs0.plan");
  text(&to, "observe"), msgpack_pack_array(&to, 1), text(&to, "proposal");
  say("claim", &out);

  int answered = 0, status = 0;
  for (int over = 0; !over;) {
    zmq_pollitem_t item = {sock, 0, ZMQ_POLLIN, 0};
    if (zmq_poll(&item, 1, 30000) <= 0) return fprintf(stderr, "the twin is silent\n"), 1;
    zmq_msg_t head, payload;
    zmq_msg_init(&head), zmq_msg_init(&payload);
    zmq_msg_recv(&head, sock, 0), zmq_msg_recv(&payload, sock, 0);
    msgpack_unpacked h, p;
    msgpack_unpacked_init(&h), msgpack_unpacked_init(&p);
    if (!msgpack_unpack_next(&h, zmq_msg_data(&head), zmq_msg_size(&head), NULL)) return fprintf(stderr, "no header\n"), 1;
    const msgpack_object kind = h.data.via.array.ptr[2];
#define IS(s) (kind.via.str.size == strlen(s) && !memcmp(kind.via.str.ptr, s, strlen(s)))
    if (IS("answer")) {
      printf("granted\n");
    } else if (IS("observe") && msgpack_unpack_next(&p, zmq_msg_data(&payload), zmq_msg_size(&payload), NULL)) {
      msgpack_sbuffer_clear(&out);
      msgpack_pack_map(&to, 2);
      text(&to, "moment"), msgpack_pack_object(&to, *at(&p.data, "moment"));
      text(&to, "plan"), better(&to, at(at(&p.data, "proposal"), "plan"));
      say("act", &out);
      answered++;
    } else if (IS("dropped") || IS("misuse") || IS("refused") || IS("fault")) {
      printf("%.*s: %d moments answered\n", (int)zmq_msg_size(&payload), (char *)zmq_msg_data(&payload), answered);
      over = !IS("refused"), status = IS("misuse");
    }
    fflush(stdout);
    msgpack_unpacked_destroy(&h), msgpack_unpacked_destroy(&p);
    zmq_msg_close(&head), zmq_msg_close(&payload);
  }
  msgpack_sbuffer_destroy(&out);
  int linger = 1000;
  zmq_setsockopt(sock, ZMQ_LINGER, &linger, sizeof linger);
  zmq_close(sock), zmq_ctx_term(context);
  return status;
}
