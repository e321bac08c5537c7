// Small canvases: time courses, heat maps, the plan's blocks, the stages of a subframe. Each draws what it is given, and keeps nothing.

export const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8F7A00"];
// cividis at nine points: reads the same with any colour vision
const MAP = [[0, 32, 77], [0, 51, 111], [57, 72, 107], [87, 93, 109], [112, 113, 115], [138, 134, 120], [166, 157, 117], [203, 186, 105], [255, 234, 70]];
const TABLE = Array.from({ length: 256 }, (_, i) => {
  const x = (i / 255) * (MAP.length - 1), k = Math.min(Math.floor(x), MAP.length - 2);
  return MAP[k].map((from, c) => Math.round(from + (MAP[k + 1][c] - from) * (x - k)));
});

export function theme() {
  const style = getComputedStyle(document.body), at = (name) => style.getPropertyValue(name).trim();
  return { ink: at("--ink"), soft: at("--soft"), line: at("--line"), card: at("--card"), ground: at("--ground") };
}

// A canvas made as large as its box, in device pixels, with a clean sheet.
function sheet(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 2), box = canvas.getBoundingClientRect();
  const width = Math.max(1, Math.round(box.width)), height = Math.max(1, Math.round(box.height));
  if (canvas.width !== width * ratio || canvas.height !== height * ratio) {
    canvas.width = width * ratio;
    canvas.height = height * ratio;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = "11px system-ui, 'DejaVu Sans', sans-serif";
  pen.textBaseline = "middle";
  return { pen, width, height };
}

function words(pen, text, x, y, colour, align = "left") {
  pen.fillStyle = colour;
  pen.textAlign = align;
  pen.fillText(text, x, y);
}

function steps(low, high, most) {
  const raw = (high - low) / most, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((n) => n * size).find((n) => n >= raw) || raw;
  const out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-6; v += step) out.push(+v.toPrecision(6));
  return out;
}

const shown = (value) => (Math.abs(value) >= 1000 ? `${+(value / 1000).toPrecision(3)}k` : `${+value.toPrecision(3)}`);

// curves: [{points: [[t, v], ...], colour, dash, name, width}]; v null breaks the line
export function chart(canvas, curves, { from, to, log = false, floor = null, empty = "" } = {}) {
  const { pen, width, height } = sheet(canvas), look = theme();
  const values = curves.flatMap((c) => c.points.filter(([t, v]) => v !== null && t >= from && (!log || v > 0)).map(([, v]) => v));
  if (!values.length) {
    words(pen, empty, width / 2, height / 2, look.soft, "center");
    return { drawn: 0 };
  }
  let low = Math.min(...values), high = Math.max(...values);
  if (floor !== null && !log) low = Math.min(floor, low);
  if (log) [low, high] = [Math.log10(low) - 0.1, Math.log10(high) + 0.1];
  else high += (high - low) * 0.08 || 1;
  const left = 38, right = width - 6, top = 5, bottom = height - 16;
  const x = (t) => left + ((t - from) / (to - from)) * (right - left);
  const y = (v) => bottom - (((log ? Math.log10(v) : v) - low) / (high - low)) * (bottom - top);
  pen.lineWidth = 1;
  const rows = log ? steps(low, high, 3).filter(Number.isInteger).map((p) => 10 ** p) : steps(low, high, 4);
  const marks = log && rows.length < 2 ? [1, 2, 5].flatMap((n) => [-3, -2, -1, 0, 1, 2, 3, 4, 5].map((p) => n * 10 ** p)).filter((v) => Math.log10(v) >= low && Math.log10(v) <= high) : rows;
  for (const v of marks) {
    pen.strokeStyle = look.line;
    pen.beginPath();
    pen.moveTo(left, y(v));
    pen.lineTo(right, y(v));
    pen.stroke();
    words(pen, shown(v), left - 4, y(v), look.soft, "right");
  }
  for (const t of steps(from, to, 5)) if (t >= 0) words(pen, `${+t.toFixed(2)}`, Math.min(Math.max(x(t), left + 6), right - 8), height - 7, look.soft, "center");
  let drawn = 0;
  for (const curve of curves) {
    pen.strokeStyle = curve.colour;
    pen.lineWidth = curve.width || 1.5;
    pen.setLineDash(curve.dash || []);
    pen.beginPath();
    let pen_down = false;
    for (const [t, v] of curve.points) {
      if (v === null || t < from || (log && !(v > 0))) {
        pen_down = false;
        continue;
      }
      if (pen_down) pen.lineTo(x(t), y(v));
      else pen.moveTo(x(t), y(v));
      if (!pen_down) pen.lineTo(x(t) + 0.7, y(v));
      pen_down = true;
      drawn += 1;
    }
    pen.stroke();
  }
  pen.setLineDash([]);
  return { drawn, low, high };
}

// A packed grid [row][column] as an image of one pixel an entry; `turned` exchanges rows and columns, first rows at the bottom.
export function image(grid, turned = false) {
  const raw = Uint8Array.from(atob(grid.data), (c) => c.charCodeAt(0));
  const [rows, columns] = grid.shape, out = document.createElement("canvas");
  out.width = turned ? rows : columns;
  out.height = turned ? columns : rows;
  const pen = out.getContext("2d"), pixels = pen.createImageData(out.width, out.height);
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < columns; c++) {
      const at = 4 * (turned ? (columns - 1 - c) * rows + r : (rows - 1 - r) * columns + c);
      pixels.data.set(TABLE[raw[r * columns + c]], at);
      pixels.data[at + 3] = 255;
    }
  }
  pen.putImageData(pixels, 0, 0);
  return out;
}

// marks: [{x, y, kind: "ring" | "cross" | "line", name}]
export function heat(canvas, picture, { x, y, xname, yname, marks = [], low = "", high = "", empty = "" }) {
  const { pen, width, height } = sheet(canvas), look = theme();
  if (!picture) {
    for (const [i, line] of empty.split("\n").entries()) words(pen, line, width / 2, height / 2 + 15 * i - 8, look.soft, "center");
    return;
  }
  const left = 46, right = width - 50, top = 6, bottom = height - 30;
  pen.imageSmoothingEnabled = false;
  if (picture === "none") {
    pen.fillStyle = `rgb(${TABLE[40]})`;
    pen.fillRect(left, top, right - left, bottom - top);
  } else pen.drawImage(picture, left, top, right - left, bottom - top);
  const px = (v) => left + ((v - x[0]) / (x[1] - x[0])) * (right - left), py = (v) => bottom - ((v - y[0]) / (y[1] - y[0])) * (bottom - top);
  for (const v of steps(...x, 6)) words(pen, shown(v), px(v), bottom + 9, look.soft, "center");
  for (const v of steps(...y, 5)) words(pen, `${+v.toPrecision(5)}`, left - 4, py(v), look.soft, "right");
  words(pen, xname, (left + right) / 2, height - 7, look.soft, "center");
  pen.save();
  pen.translate(7, (top + bottom) / 2);
  pen.rotate(-Math.PI / 2);
  words(pen, yname, 0, 0, look.soft, "center");
  pen.restore();
  const bar = right + 6, tall = bottom - top;
  for (let i = 0; high && i < tall; i++) {
    pen.fillStyle = `rgb(${TABLE[255 - Math.floor((255 * i) / tall)]})`;
    pen.fillRect(bar, top + i, 8, 1.5);
  }
  if (high) {
    words(pen, high, bar + 11, top + 6, look.soft);
    words(pen, low, bar + 11, bottom - 5, look.soft);
    words(pen, "dB", bar + 11, (top + bottom) / 2, look.soft);
  }
  pen.save();
  pen.beginPath();
  pen.rect(left, top, right - left, bottom - top);
  pen.clip();
  const taken = [];
  for (const mark of marks) {
    const at = [px(mark.x), py(mark.y)];
    for (const [colour, size] of [["#000", 3.5], ["#fff", 1.5]]) {
      pen.strokeStyle = mark.kind === "cross" && colour === "#fff" ? "#ff3b1f" : colour;
      pen.lineWidth = size;
      pen.beginPath();
      if (mark.kind === "line") {
        pen.setLineDash(colour === "#fff" ? [5, 4] : []);
        pen.moveTo(at[0], top);
        pen.lineTo(at[0], bottom);
      } else if (mark.kind === "ring") pen.arc(...at, 7, 0, 7);
      else for (const s of [1, -1]) {
        pen.moveTo(at[0] - 5, at[1] - 5 * s);
        pen.lineTo(at[0] + 5, at[1] + 5 * s);
      }
      if (mark.kind !== "line" || colour === "#fff") pen.stroke();
      pen.setLineDash([]);
    }
    if (mark.name) {
      pen.lineWidth = 3;
      pen.strokeStyle = "#000";
      const flip = at[0] > right - 90, wide = pen.measureText(mark.name).width;
      const x0 = flip ? at[0] - 10 - wide : at[0] + 10;
      const free = (y) => !taken.some((t) => Math.abs(t.y - y) < 12 && x0 < t.x1 && t.x0 < x0 + wide);
      const y0 = [-10, 12, -22, 24, -34, 36, -46, 48].map((d) => at[1] + d).find(free);
      if (y0 === undefined) continue; // no room for another name
      taken.push({ x0, x1: x0 + wide, y: y0 });
      const to = [flip ? at[0] - 10 : x0, y0];
      pen.textAlign = flip ? "right" : "left";
      pen.strokeText(mark.name, ...to);
      words(pen, mark.name, ...to, "#fff", pen.textAlign);
    }
  }
  pen.restore();
}

// What each block of the subframe is for: -1 sensing, -2 silent, else a user.
export function blocks(canvas, plan, updates) {
  const { pen, width, height } = sheet(canvas), look = theme();
  const step = width / Math.max(plan.length, 1);
  plan.forEach((what, i) => {
    pen.fillStyle = what === -2 ? look.line : what === -1 ? look.ink : COLOURS[what % COLOURS.length];
    pen.fillRect(i * step + 0.5, 0, step - 1, height - 5);
  });
  pen.fillStyle = look.ink;
  for (const i of updates) pen.fillRect(i * step + 0.5, height - 4, step - 1, 3);
}

// Wall time of each stage beside the budget.
export function stages(canvas, told) {
  const { pen, width, height } = sheet(canvas), look = theme();
  if (!told) {
    words(pen, "the clock is said live, and not recorded", width / 2, height / 4, look.soft, "center");
    return;
  }
  const inner = new Set(["sensing", "tracking", "planning", "precoding"]);
  const rows = Object.entries(told.stage_ns).map(([name, ns]) => ({ name, ms: ns * 1e-6, inner: inner.has(name) }));
  const whole = rows.filter((r) => !r.inner).reduce((sum, r) => sum + r.ms, 0), budget = told.budget_ns * 1e-6;
  const left = 66, right = width - 34, each = 13, room = Math.max(1, Math.floor((height - 14) / each));
  const first = rows.sort((a, b) => b.ms - a.ms).slice(0, room), top = Math.max(...rows.map((r) => r.ms), 1e-6);
  words(pen, `subframe ${whole.toFixed(1)} ms of ${budget.toFixed(1)} ms`, 2, 6, whole > budget ? "#D55E00" : look.ink);
  first.forEach((row, i) => {
    const y = 14 + each * (i + 0.5), long = Math.max(1, (row.ms / top) * (right - left));
    words(pen, row.name, left - 4, y, look.soft, "right");
    pen.fillStyle = row.inner ? "#56B4E9" : "#0072B2"; // light: a part of the stage steer
    pen.fillRect(left, y - 4, long, 8);
    words(pen, row.ms.toFixed(row.ms < 1 ? 2 : 1), left + long + 3, y, look.soft);
  });
}
