// The page's one drawn element: a stream of frames comes in over a socket of its own, the newest is drawn, and only then the next is asked for.

import { Street, blocks, chart, heat, image, stages, theme } from "twin-dash";

const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8F7A00"];
const SLOWER_MS = 180; // between two drawings of what moves slowly
const pairs = (values, series) => (values || []).map((v, i) => [series.first + i * series.step, v]);
const number = (value, digits) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export default {
  template: `
  <div class="twin" :class="{ old: away }">
    <section class="street">
      <div class="box" ref="street"></div>
      <div class="key">
        <span v-for="u in users" :key="u.id"><i :style="{ background: u.colour }"></i>{{ u.name }}</span>
        <span><i style="background:#D55E00"></i>carries no radio</span>
        <span><i style="background:#b14a9c"></i>sensing beam</span><span><i style="background:#8a8a8a"></i>search beam</span>
        <span>wire: track, 3 sigma</span>
      </div>
      <div class="banner" v-if="banner" :class="tone">{{ banner }}</div>
    </section>
    <section class="squint"><h3>{{ squintTitle }}</h3><canvas ref="squint"></canvas></section>
    <section class="map"><h3>{{ mapTitle }}</h3><canvas ref="map"></canvas></section>
    <section class="rate"><h3>Rate of each user, Gbit/s</h3><canvas ref="rate"></canvas></section>
    <section class="error"><h3>Error, dashed its bound: <b class="one">angle, mdeg</b> <b class="two">range, mm</b></h3><canvas ref="error"></canvas></section>
    <section class="cs"><h3>Plan: blocks of this subframe (dark: sensing)</h3><canvas ref="plan" class="strip"></canvas><h3>C-S correlation of the row shown above</h3><canvas ref="cs"></canvas></section>
    <section class="pace"><h3>Lag, ms; wall time of each stage, ms</h3><canvas ref="lag" class="half"></canvas><canvas ref="stages" class="half"></canvas></section>
    <section class="users"><table><thead><tr><th>user</th><th>Gbit/s</th><th>believed</th><th>SNR dB</th><th>beam loss dB</th><th>track</th></tr></thead>
      <tbody><tr v-for="u in users" :key="u.id" @click="$emit('choose', u.id)" :class="{ chosen: u.name === chosen }" title="show this user's beam over frequency">
        <td><i :style="{ background: u.colour }"></i>{{ u.name }}</td><td>{{ u.rate }}</td><td>{{ u.believed }}</td><td>{{ u.snr }}</td>
        <td>{{ u.loss }}</td><td>{{ u.track }}</td></tr></tbody></table></section>
    <section class="notes"><h3>What happened</h3><ol ref="notes"><li v-for="n in notes" :key="n.key" :class="n.tone"><time>{{ n.t }}</time>{{ n.text }}</li></ol></section>
    <section class="scrub" v-if="replay"><input type="range" :min="replay.first_ns" :max="replay.last_ns" :step="replay.period_ns || 1" :value="dragged === null ? replay.t_ns : dragged"
      @input="drag" @change="dragged = null" aria-label="time"/><output>{{ ((dragged === null ? replay.t_ns : dragged) * 1e-9).toFixed(3) }} of {{ (replay.last_ns * 1e-9).toFixed(3) }} s</output></section>
  </div>`,
  emits: ["seek", "choose", "head"],
  data: () => ({ users: [], notes: [], banner: "", tone: "", away: false, squintTitle: "Gain over angle and frequency", mapTitle: "Last dwell: delay and Doppler", chosen: "", replay: null, dragged: null }),

  mounted() {
    this.street = new Street(this.$refs.street);
    this.frames = 0;
    this.times = [];
    this.repaint();
    new MutationObserver(() => this.repaint()).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.repaint());
    window.twinDash = { drawn: () => ({ ...this.street.drawn(), frames: this.frames, hz: this.hz(), frame: this.frame }), view: this };
    this.dial();
  },
  unmounted() {
    this.closed = true;
    this.socket?.close();
  },

  methods: {
    dial() {
      if (this.closed) return;
      const path = `${window.path_prefix || ""}/frames`;
      this.socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`);
      this.socket.onmessage = (event) => {
        const frame = JSON.parse(event.data);
        requestAnimationFrame(() => {
          try {
            this.show(frame);
          } finally {
            if (this.socket.readyState === 1) this.socket.send("next"); // drawn: whatever is newest then is wanted next
          }
        });
      };
      this.socket.onclose = () => {
        this.away = true;
        this.tone = "bad";
        this.banner = "The dashboard's own server is gone. Trying again; what you see is old.";
        setTimeout(() => this.dial(), 1000);
      };
    },

    hz() {
      const t = this.times;
      return t.length > 1 ? ((t.length - 1) * 1000) / (t[t.length - 1] - t[0]) : 0;
    },

    repaint() {
      this.street.paint(theme());
      if (this.frame) this.panels(this.frame);
    },

    show(frame) {
      if (frame.run !== this.run) this.pictures = {};
      this.run = frame.run;
      this.frame = frame;
      this.frames += 1;
      this.times.push(performance.now());
      if (this.times.length > 40) this.times.shift();
      this.condition(frame);
      this.replay = frame.replay;
      if (frame.t !== undefined) {
        this.street.show(frame);
        const now = performance.now();
        if (now - (this.drawn_ms || 0) > SLOWER_MS) {
          this.drawn_ms = now;
          this.panels(frame);
        }
        this.chosen = frame.squint?.name || "";
        this.users = frame.users.map((u, i) => ({
          id: u.id, name: u.name, colour: COLOURS[i % COLOURS.length], rate: number(u.rate, 2), believed: number(u.believed, 2),
          snr: number(u.snr, 1), loss: number(u.loss, 2), track: u.track < 0 ? "–" : `#${u.track}`,
        }));
      }
      this.log(frame.notes);
      this.$emit("head", 0);
    },

    condition(frame) {
      const silent = frame.silent_s.toFixed(0);
      const nobody = frame.answers === false ? `, and nobody listens at ${frame.endpoint}` : frame.answers ? ", but its port answers: busy, or held" : "";
      const said = {
        waiting: [`No twin is heard at ${frame.endpoint} yet; listening on.  twin run scenarios/street.yaml --pace 1 --state ${frame.endpoint}`, "warn"],
        late: [`No word from the twin for ${silent} s${nobody}.`, "warn"],
        gone: [`The twin is gone: no word for ${silent} s${nobody}. Waiting for it; what you see is old.`, "bad"],
        stopped: [`The run has ended: ${frame.reason}. What you see is its last; waiting for the next.`, "done"],
      }[frame.condition];
      this.away = ["late", "gone"].includes(frame.condition);
      [this.banner, this.tone] = said || (frame.t === undefined ? ["The twin is there; waiting for its first subframe.", "warn"] : frame.fault ? [`The machine says: ${frame.fault}`, "warn"] : ["", ""]);
      const at = frame.t === undefined ? "" : `t ${frame.t.toFixed(3)} s · subframe ${frame.k}${frame.subframes ? ` of ${frame.subframes}` : ""}`;
      const speed = frame.speed === null ? "" : ` · ${frame.speed.toFixed(2)} × real time`;
      const lost = frame.lost ? ` · ${frame.lost} documents lost` : "";
      const badge = { live: frame.replay ? (frame.replay.playing ? "REPLAY" : "PAUSED") : "LIVE", waiting: "NO TWIN YET", late: "SILENT", gone: "GONE", stopped: "ENDED" }[frame.condition];
      const put = (name, text) => {
        const node = document.getElementById(`twin-${name}`);
        if (node && node.textContent !== text) node.textContent = text;
        return node;
      };
      put("title", frame.title || frame.endpoint);
      put("time", at + speed + lost);
      const node = put("badge", badge);
      if (node) node.dataset.condition = frame.replay && frame.condition === "live" ? "replay" : frame.condition;
    },

    panels(frame) {
      const s = frame.series, span = s && { from: s.since, to: Math.max(s.since + 0.2, s.now) };
      if (s) {
        chart(this.$refs.rate, s.rate.map((v, i) => ({ points: pairs(v, s), colour: COLOURS[i % COLOURS.length] })), { ...span, floor: 0, empty: "no user is served" });
        chart(this.$refs.error, [
          { points: pairs(s.angle, s), colour: "#0072B2" }, { points: pairs(s.angle_bound, s), colour: "#0072B2", dash: [4, 3], width: 1 },
          { points: pairs(s.range, s), colour: "#D55E00" }, { points: pairs(s.range_bound, s), colour: "#D55E00", dash: [4, 3], width: 1 },
        ], { ...span, log: true, empty: "nothing detected" });
        chart(this.$refs.cs, [{ points: s.cs, colour: "#009E73" }], { ...span, floor: 0, empty: "needs a user's row and a tracked target" });
        chart(this.$refs.lag, [{ points: s.lag, colour: "#CC79A7" }], { ...span, floor: 0, empty: frame.replay ? "" : "no word of the clock" });
        blocks(this.$refs.plan, frame.plan, frame.updates);
        stages(this.$refs.stages, frame.stages);
      }
      this.squint(frame.squint, frame.unknown);
      this.dwell(frame.map, frame.unknown);
    },

    squint(told, unknown) {
      this.squintTitle = told ? `Beam of ${told.name}${told.commanded ? " (as commanded)" : ", as realised"}: gain over azimuth, frequency` : "Gain over angle and frequency";
      const key = told && told.grid.data;
      if (key !== this.pictures?.squintKey) this.pictures = { ...this.pictures, squintKey: key, squint: told && image(told.grid, true) };
      const half = told && (told.ghz[1] - told.ghz[0]) / 62;
      heat(this.$refs.squint, told && this.pictures.squint, told ? {
        x: told.angle, y: [told.ghz[0] - half, told.ghz[1] + half], xname: "azimuth from boresight, degrees (line: believed)", yname: "GHz",
        marks: [{ x: told.azimuth, y: told.ghz[0], kind: "line" }], low: `${(told.top_db - 30).toFixed(0)}`, high: `${told.top_db.toFixed(0)}`,
      } : { empty: unknown || "no user's beam has been reported yet" });
    },

    dwell(told, unknown) {
      this.mapTitle = told ? told.grid ? `Delay and Doppler of the dwell at ${told.t.toFixed(3)} s` : "Last dwell: range and speed (its echoes were not recorded)" : "Last dwell: delay and Doppler";
      if (told?.grid && told.number !== this.pictures?.mapKey) this.pictures = { ...this.pictures, mapKey: told.number, map: image(told.grid) };
      heat(this.$refs.map, told && (told.grid ? this.pictures.map : "none"), told ? {
        x: told.range, y: told.velocity, xname: "range, m (ring: a mover, cross: detected)", yname: "closing, m/s", low: told.grid ? "0" : "", high: told.grid ? `${told.top_db}` : "",
        marks: [...told.truth.map(([name, x, y]) => ({ x, y, kind: "ring", name })), ...told.found.map(([x, y]) => ({ x, y, kind: "cross" }))],
      } : { empty: unknown || "no dwell yet" });
    },

    log(notes) {
      const last = notes.length ? notes[notes.length - 1] : null, key = last && `${notes.length}${last}`;
      if (key === this.logged) return;
      this.logged = key;
      this.notes = notes.slice().reverse().map(([t, text, tone, times], i) => ({ key: notes.length - i + text, t: `${t.toFixed(3)} s`, text: times > 1 ? `${text} (${times} times)` : text, tone }));
    },

    drag(event) {
      this.dragged = Number(event.target.value);
      this.$emit("seek", this.dragged);
    },
  },
};
