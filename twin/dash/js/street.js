// The street in three dimensions: who is where, what is believed of it, and where the beams go. World frame: x east, y north, z up.

import { OrbitControls, THREE } from "nicegui-scene";
import { COLOURS } from "./panels.js";

const LOBE_M = 48; // drawn length of a lobe at its peak; decibels below shorten it
const TRAIL = 60;
const LOOK = "#b14a9c", SEARCH = "#8a8a8a", TARGET = "#D55E00";

// Whether pixels are made by the processor: then smooth edges cost four times what they are worth.
function software() {
  const gl = document.createElement("canvas").getContext("webgl2"), told = gl?.getExtension("WEBGL_debug_renderer_info");
  const name = told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "";
  gl?.getExtension("WEBGL_lose_context")?.loseContext();
  return /swiftshader|llvmpipe|software|basic render/i.test(name);
}

export class Street {
  constructor(box) {
    this.box = box;
    const slow = software();
    this.renderer = new THREE.WebGLRenderer({ antialias: !slow, alpha: true });
    this.ratio = slow ? 0.75 : Math.min(window.devicePixelRatio || 1, 2);
    this.renderer.setPixelRatio(this.ratio);
    box.append(this.renderer.domElement);
    this.labels = document.createElement("div");
    this.labels.className = "twin-labels";
    box.append(this.labels);
    this.scene = new THREE.Scene();
    this.camera = new THREE.PerspectiveCamera(42, 1, 0.5, 1200);
    this.camera.up.set(0, 0, 1);
    this.camera.position.set(-52, -20, 52);
    this.controls = new OrbitControls(this.camera, this.renderer.domElement);
    this.controls.target.set(46, 0, 0);
    this.controls.update();
    this.controls.addEventListener("change", () => this.render());
    this.scene.add(new THREE.HemisphereLight(0xffffff, 0x667788, 2.2));
    const sun = new THREE.DirectionalLight(0xffffff, 1.4);
    sun.position.set(-40, -60, 90);
    this.scene.add(sun);
    this.movers = new Map();
    this.tracks = new Map();
    this.lobes = new Map();
    this.tags = new Map();
    this.fixed = null;
    this.sphere = new THREE.WireframeGeometry(new THREE.SphereGeometry(1, 12, 8));
    new ResizeObserver(() => this.render()).observe(box);
  }

  // look: colours of the theme
  paint(look) {
    this.look = look;
    if (this.grid) this.scene.remove(this.grid);
    this.grid = new THREE.GridHelper(400, 40, look.line, look.line);
    this.grid.rotation.x = Math.PI / 2;
    this.grid.position.set(60, 0, -0.02);
    this.scene.add(this.grid);
    for (const track of this.tracks.values()) track.ball.material.color.set(look.ink);
    if (this.fixed) this.fixed.traverse((one) => one.material && one.userData.ink && one.material.color.set(look.ink));
    this.render();
  }

  place(site) {
    const key = JSON.stringify(site);
    if (!site || key === this.placed) return;
    this.placed = key;
    if (this.fixed) this.scene.remove(this.fixed);
    this.fixed = new THREE.Group();
    this.origin = new THREE.Vector3(...site.position);
    this.rotation = new THREE.Matrix3().set(...site.rotation);
    const ink = new THREE.MeshBasicMaterial({ color: this.look.ink });
    const mast = new THREE.Mesh(new THREE.CylinderGeometry(0.25, 0.35, site.position[2], 8), ink);
    mast.rotation.x = Math.PI / 2;
    mast.position.set(site.position[0], site.position[1], site.position[2] / 2);
    mast.userData.ink = true;
    const panel = new THREE.Mesh(new THREE.BoxGeometry(0.4, 2.2, 2.2), new THREE.MeshLambertMaterial({ color: "#0072B2" }));
    const m = site.rotation;
    panel.matrixAutoUpdate = false;
    panel.matrix.set(m[0], m[1], m[2], site.position[0], m[3], m[4], m[5], site.position[1], m[6], m[7], m[8], site.position[2], 0, 0, 0, 1);
    const ahead = Math.atan2(m[3], m[0]), points = [new THREE.Vector3(site.position[0], site.position[1], 0)];
    for (let i = -24; i <= 24; i++) {
      const a = ahead + (i / 24) * (Math.PI / 3);
      points.push(new THREE.Vector3(site.position[0] + site.range * Math.cos(a), site.position[1] + site.range * Math.sin(a), 0));
    }
    const sector = new THREE.LineLoop(new THREE.BufferGeometry().setFromPoints(points), new THREE.LineBasicMaterial({ color: "#0072B2", transparent: true, opacity: 0.5 }));
    this.fixed.add(mast, panel, sector);
    this.scene.add(this.fixed);
  }

  show(frame) {
    this.place(frame.site);
    this.each(this.movers, frame.movers, (one) => this.newMover(one), (mesh, one) => this.moveMover(mesh, one));
    this.each(this.tracks, frame.tracks, () => this.newTrack(), (track, one) => this.moveTrack(track, one));
    if (this.origin) this.each(this.lobes, frame.lobes.map((l) => ({ ...l, id: l.slot })), () => this.newLobe(), (mesh, one) => this.bend(mesh, one));
    this.render();
  }

  each(kept, shown, make, move) {
    const here = new Set();
    for (const one of shown) {
      here.add(one.id);
      if (!kept.has(one.id)) {
        kept.set(one.id, make(one));
        this.scene.add(kept.get(one.id));
      }
      move(kept.get(one.id), one);
    }
    for (const [id, object] of kept) {
      if (here.has(id)) continue;
      this.scene.remove(object);
      object.traverse((o) => o.geometry && o.geometry !== this.sphere && o.geometry.dispose());
      kept.delete(id);
    }
  }

  newMover(one) {
    const group = new THREE.Group();
    const colour = one.user >= 0 ? COLOURS[one.user % COLOURS.length] : TARGET;
    const shape = one.user >= 0 ? new THREE.BoxGeometry(4.4, 1.9, 1.5) : new THREE.OctahedronGeometry(1.2);
    group.body = new THREE.Mesh(shape, new THREE.MeshLambertMaterial({ color: colour }));
    const line = new THREE.BufferGeometry().setAttribute("position", new THREE.BufferAttribute(new Float32Array(3 * TRAIL), 3));
    group.trail = new THREE.Line(line, new THREE.LineBasicMaterial({ color: colour, transparent: true, opacity: 0.6 }));
    group.past = [];
    group.trail.frustumCulled = false;
    group.add(group.body, group.trail);
    return group;
  }

  moveMover(group, one) {
    const z = one.user >= 0 ? 0.8 : one.at[2];
    group.body.position.set(one.at[0], one.at[1], z);
    if (Math.hypot(one.v[0], one.v[1]) > 0.05) group.body.rotation.z = Math.atan2(one.v[1], one.v[0]);
    const last = group.past[group.past.length - 1];
    if (last && last.distanceTo(group.body.position) > 15) group.past = []; // a replay jumped
    if (!last || last.distanceTo(group.body.position) > 0.15) group.past.push(new THREE.Vector3(one.at[0], one.at[1], one.user >= 0 ? 0.1 : z));
    if (group.past.length > TRAIL) group.past.shift();
    const trail = group.trail.geometry.attributes.position;
    group.past.forEach((at, i) => trail.setXYZ(i, at.x, at.y, at.z));
    trail.needsUpdate = true;
    group.trail.geometry.setDrawRange(0, group.past.length);
    group.name = one.name;
  }

  newTrack() {
    const group = new THREE.Group();
    group.ball = new THREE.LineSegments(this.sphere, new THREE.LineBasicMaterial({ color: this.look.ink, transparent: true }));
    group.ball.matrixAutoUpdate = false;
    const arms = [[1, 0, 0], [0, 1, 0], [0, 0, 1]].flatMap((a) => [new THREE.Vector3(...a), new THREE.Vector3(...a).negate()]);
    group.cross = new THREE.LineSegments(new THREE.BufferGeometry().setFromPoints(arms), group.ball.material);
    group.add(group.ball, group.cross);
    return group;
  }

  moveTrack(group, one) {
    const a = one.axes, [x, y, z] = one.at;
    group.ball.matrix.set(a[0], a[1], a[2], x, a[3], a[4], a[5], y, a[6], a[7], a[8], z, 0, 0, 0, 1);
    group.cross.position.set(x, y, z);
    group.cross.scale.setScalar(one.sure ? 1.6 : 0.6);
    group.ball.visible = one.sure;
    group.ball.material.opacity = one.sure ? 0.9 : 0.35;
    group.ball.material.color.set(one.sure && one.follows < 0 ? "#D50000" : this.look.ink);
    group.one = one;
  }

  newLobe() {
    const mesh = new THREE.Mesh(new THREE.BufferGeometry(), new THREE.MeshBasicMaterial({ vertexColors: true, transparent: true, side: THREE.FrontSide, depthWrite: false }));
    mesh.frustumCulled = false;
    return mesh;
  }

  // A surface whose distance from the array is the gain: decibels below the peak, squared, so that side lobes stay small.
  bend(mesh, one) {
    const colour = one.kind === "data" ? COLOURS[one.whom % COLOURS.length] : one.kind === "look" ? LOOK : SEARCH;
    mesh.material.color.set(colour);
    mesh.material.opacity = one.kind === "data" ? 0.42 : 0.3;
    mesh.kind = one.kind;
    if (mesh.version === one.version && mesh.at === this.placed) return;
    mesh.version = one.version;
    mesh.at = this.placed;
    const [rows, columns] = one.grid.shape, raw = atob(one.grid.data);
    const position = new Float32Array(rows * columns * 3), turn = this.rotation, point = new THREE.Vector3();
    for (let r = 0; r < rows; r++) {
      for (let c = 0; c < columns; c++) {
        const uy = one.uy[r], uz = one.uz[c], inside = 1 - uy * uy - uz * uz;
        const long = inside > 0 ? LOBE_M * (raw.charCodeAt(r * columns + c) / 255) ** 2 : 0;
        point.set(Math.sqrt(Math.max(inside, 0)), uy, uz).applyMatrix3(turn).multiplyScalar(long).add(this.origin);
        position.set([point.x, point.y, point.z], 3 * (r * columns + c));
      }
    }
    const geometry = mesh.geometry;
    if (!geometry.index) {
      const index = [];
      for (let r = 0; r + 1 < rows; r++) {
        for (let c = 0; c + 1 < columns; c++) {
          const at = r * columns + c;
          index.push(at, at + columns, at + 1, at + 1, at + columns, at + columns + 1); // faces look outwards
        }
      }
      geometry.setIndex(index);
      geometry.setAttribute("position", new THREE.BufferAttribute(position, 3));
      geometry.setAttribute("color", new THREE.BufferAttribute(new Float32Array(position.length), 3));
    } else {
      geometry.attributes.position.array.set(position);
      geometry.attributes.position.needsUpdate = true;
    }
    geometry.computeVertexNormals();
    // lit from above once, when the lobe changes, and not at every pixel of every picture
    const normal = geometry.attributes.normal.array, shade = geometry.attributes.color;
    for (let i = 0; i < normal.length; i += 3) shade.array.fill(0.72 + 0.28 * (0.75 * normal[i + 2] - 0.4 * normal[i + 1] - 0.3 * normal[i]), i, i + 3);
    shade.needsUpdate = true;
  }

  render() {
    const { clientWidth: width, clientHeight: height } = this.box;
    if (!width || !height) return;
    if (this.width !== width || this.height !== height) {
      [this.width, this.height] = [width, height];
      this.renderer.setSize(width, height);
      this.camera.aspect = width / height;
      this.camera.updateProjectionMatrix();
    }
    this.renderer.render(this.scene, this.camera);
    this.label(width, height);
  }

  label(width, height) {
    const wanted = new Map();
    for (const [id, group] of this.movers) wanted.set(`m${id}`, [group.name, group.body.position.clone().setZ(group.body.position.z + 2.2), ""]);
    for (const [id, group] of this.tracks) if (group.one?.sure && group.one.follows < 0) wanted.set(`t${id}`, [`#${id} nobody`, new THREE.Vector3(...group.one.at), "bad"]);
    for (const [key, [text, at, tone]] of wanted) {
      const seen = at.project(this.camera), out = seen.z > 1 || Math.abs(seen.x) > 1 || Math.abs(seen.y) > 1;
      if (!this.tags.has(key)) this.tags.set(key, this.labels.appendChild(document.createElement("span")));
      const tag = this.tags.get(key);
      if (tag.textContent !== text) tag.textContent = text;
      tag.className = tone;
      tag.style.display = out ? "none" : "";
      tag.style.transform = `translate(-50%, -100%) translate(${((seen.x + 1) / 2) * width}px, ${((1 - seen.y) / 2) * height}px)`;
    }
    for (const [key, tag] of this.tags) {
      if (wanted.has(key)) continue;
      tag.remove();
      this.tags.delete(key);
    }
  }

  // What is drawn, read from the geometry itself: for tests.
  drawn() {
    const tips = {};
    for (const [slot, mesh] of this.lobes) {
      const p = mesh.geometry.attributes.position.array;
      let best = 0, tip = [0, 0, 0];
      for (let i = 0; i < p.length; i += 3) {
        const away = Math.hypot(p[i] - this.origin.x, p[i + 1] - this.origin.y, p[i + 2] - this.origin.z);
        if (away > best) [best, tip] = [away, [p[i], p[i + 1], p[i + 2]]];
      }
      tips[slot] = { kind: mesh.kind, tip, long: best, version: mesh.version };
    }
    const at = (group) => group.body.position.toArray();
    return {
      lobes: tips,
      movers: Object.fromEntries([...this.movers.values()].map((group) => [group.name, at(group)])),
      tracks: Object.fromEntries([...this.tracks].map(([id, group]) => [id, { at: group.cross.position.toArray(), axes: group.ball.matrix.toArray() }])),
      triangles: this.renderer.info.render.triangles,
    };
  }
}
