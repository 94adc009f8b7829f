// V2 Cloud: particles in the plane over the contours of the exact law.
import {FAULTS} from "./museum.js";
import {Frame, axes} from "./pen.js";
import {arrows, contours, densityGrid, dots, heat} from "./paint.js";
import {SIMULATED, percent, runOf, sceneOf, signed, workOn, ForwardRun, seenAt} from "./scene.js";
import {driftOf} from "./sampling.js";
import {drawGrips, grips} from "./grips.js";
import {Mixture} from "./mixture.js";
import {owners, slicedW2, weightError} from "./metrics.js";

const MASS = [0.5, 0.8, 0.95, 0.99];

// A square window on the plane that shows all of a law at time 0 and the noise it ends in.
export function windowOf(law, w, h, x, y) {
  let high = 0;
  for (let k = 0; k < law.K; k++) {
    const c = law.covariance(k);
    for (let j = 0; j < 2; j++) high = Math.max(high, Math.abs(law.means[2 * k + j]) + 3.5 * Math.sqrt(c[3 * j]));
  }
  high = Math.max(high, 2.6);
  const side = Math.min(w, h),
    sx = (high * w) / side,
    sy = (high * h) / side;
  return new Frame(x, y, w, h, -sx, sx, -sy, sy);
}

// log p_t on a grid over a frame whose coordinates are scaled by c.
export function planeGrid(lens, frame, c, n = 64, label = null) {
  const scaled = new Frame(0, 0, 1, 1, frame.x0 / c, frame.x1 / c, frame.y0 / c, frame.y1 / c);
  const ny = n,
    nx = Math.round((n * frame.w) / frame.h);
  return densityGrid(scaled, nx, ny, (x, at) => lens.logProb(x, at, label));
}

// The vector fields that can be shown, as functions of points (n, 2) at time t; the ODE and the SDE run backwards.
function fieldOf(name, {model, sde}, t, eta) {
  const {alpha, sigma} = sde.node(t);
  if (name === "velocity" || name === "drift")
    return (x, n) => driftOf(model, x, n, t, name === "drift" ? eta : 0).map((v) => -v);
  return (x, n) => {
    const D = model.denoise(x, n, t);
    return x.map((value, j) => (name === "denoiser" ? D[j] - value : (alpha * D[j] - value) / sigma ** 2));
  };
}

export class Cloud {
  constructor(app) {
    this.app = app;
  }

  static controls = ["law", "edit", "score", ...SIMULATED, "arrows", "trails", "scale", "gamma"];

  set(state) {
    const {law, sde, method, eta, corr, r, n, grid, path, dir, p, seed, scale, score} = state;
    const key = [law, sde, method, eta, corr, r, n, grid, path, dir, p, seed, scale, score].join();
    this.state = state;
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf(state), distances: new Map()});
    const draws = () => this.scene.law.sample(p, seed).x;
    this.run =
      dir === "forward" ? new ForwardRun(this.scene.sde, draws(), p, 2, n, seed) : runOf(state, this.scene.model);
  }

  work(deadline) {
    return workOn([this.run], deadline);
  }

  get t() {
    return this.state.t * this.scene.sde.T;
  }

  get seenT() {
    return Math.max(this.t, 1e-4 * this.scene.sde.T);
  }

  draw(pen) {
    const {
        scene: {law, sde, unit},
        state,
      } = this,
      t = this.seenT,
      c = unit(t),
      lens = law.at(sde.alpha(t), sde.variance(t));
    const frame = (this.frame = windowOf(law, pen.w - 52, pen.h - 54, 44, 8));
    const key = `${state.law} ${state.sde} ${state.scale} ${t} ${frame.w} ${frame.h}`;
    if (this.gridKey !== key) Object.assign(this, {gridKey: key, grid: planeGrid(lens, frame, c)});
    pen.clip(frame, () => {
      heat(pen, frame, this.grid, state.gamma);
      contours(pen, frame, this.grid, MASS);
      if (state.trails) this.drawTrails(pen, frame);
      this.drawParticles(pen, frame, c);
      if (state.arrows !== "none") this.drawArrows(pen, frame, t, c);
      if (this.probe) this.drawProbe(pen, frame, t, c);
      drawGrips(pen, frame, state, law, this.grip);
    });
    axes(pen, frame, {x: c === 1 ? "x₁" : "x₁, scaled", y: c === 1 ? "x₂" : "x₂, scaled"});
  }

  drawArrows(pen, frame, t, c) {
    const field = fieldOf(this.state.arrows, this.scene, t, this.state.eta);
    arrows(
      pen,
      frame,
      (x, n) =>
        field(
          x.map((v) => v / c),
          n,
        ),
      pen.small ? 11 : 22,
    );
  }

  drawParticles(pen, frame, c) {
    const x = seenAt(this.run, this.t).map((v) => c * v),
      {n} = this.run;
    dots(pen, frame, x, n, {size: n > 3000 ? 1 : n > 600 ? 1.5 : 2.2, alpha: n > 3000 ? 0.6 : 0.8});
  }

  // The last tenth of the time of up to 150 particles.
  drawTrails(pen, frame) {
    const {
        run,
        scene: {unit, sde},
      } = this,
      most = Math.min(150, run.n),
      {ctx} = pen,
      sign = this.state.dir === "forward" ? -1 : 1;
    const times = Array.from({length: 12}, (_, i) =>
      Math.max(0, Math.min(sde.T, this.t + (sign * sde.T * 0.1 * (11 - i)) / 11)),
    );
    const states = times.map((t) => [unit(Math.max(t, 1e-4 * sde.T)), seenAt(run, t, 2 * most)]);
    ctx.save();
    Object.assign(ctx, {strokeStyle: pen.made, lineWidth: 0.8, globalAlpha: 0.3});
    ctx.beginPath();
    for (let p = 0; p < most; p++) {
      states.forEach(([c, x], i) => {
        const at = [frame.X(c * x[2 * p]), frame.Y(c * x[2 * p + 1])];
        if (i) ctx.lineTo(...at);
        else ctx.moveTo(...at);
      });
    }
    ctx.stroke();
    ctx.restore();
  }

  // Where a point is pulled: to the mean of every component, as strongly as it is responsible, and to E[x_0 | x_t].
  drawProbe(pen, frame, t, c) {
    const {law, sde, model} = this.scene,
      x = Float64Array.from(this.probe, (v) => v / c),
      lens = law.at(sde.alpha(t), sde.variance(t));
    const r = lens.responsibilities(x),
      D = model.denoise(x, 1, t),
      alpha = sde.alpha(t),
      from = [frame.X(this.probe[0]), frame.Y(this.probe[1])];
    r.forEach((share, k) => {
      if (share > 0.01)
        pen.line([from, [frame.X(c * alpha * law.means[2 * k]), frame.Y(c * alpha * law.means[2 * k + 1])]], {
          colour: pen.ink,
          width: 6 * share,
          alpha: 0.35,
        });
    });
    pen.arrow(...from, frame.X(c * alpha * D[0]) - from[0], frame.Y(c * alpha * D[1]) - from[1], pen.ink);
    pen.mark(...from, 5, 3, pen.ink);
    const best = [...r.keys()]
      .sort((a, b) => r[b] - r[a])
      .slice(0, 3)
      .filter((k) => r[k] > 0.005);
    best.forEach((k, i) =>
      pen.text(`component ${k + 1}: ${percent(r[k])}`, from[0] + 12, from[1] + 4 + 15 * i, {
        colour: pen.ink,
        halo: true,
      }),
    );
  }

  distance() {
    const {law, sde} = this.scene,
      n = Math.min(1000, this.run.n),
      t = this.seenT,
      key = `${t} ${this.run.frames.length}`;
    if (!this.distances.has(key)) {
      this.distances.clear();
      const x = seenAt(this.run, this.t).subarray(0, 2 * n),
        {x: a} = law.sample(n, 101),
        {x: b} = law.sample(n, 102);
      const noise = law.sample(2 * n, 103).x,
        alpha = sde.alpha(t),
        spread = sde.sigma(t),
        mixed = new Mixture([1], [0, 0], [1], 2);
      const e = mixed.sample(2 * n, 104).x,
        put = (y, at) => y.map((v, j) => alpha * v + spread * e[at + j]);
      const floor = slicedW2(put(a, 0), put(b, 2 * n), 2, 24);
      this.distances.set(key, [slicedW2(x, put(a, 0), 2, 24), floor, noise.length]);
    }
    return this.distances.get(key);
  }

  numbers() {
    const [value, floor] = this.distance(),
      {law} = this.scene;
    const own = owners(
      law,
      this.run instanceof ForwardRun ? this.run.frames[0] : seenAt(this.run, 0),
      this.run.n,
      1,
      1e-6,
    );
    return [
      ["Sliced W₂ to the exact distribution", value.toFixed(3)],
      ["of exact samples", floor.toFixed(3)],
      ["Error of the modes' weights", this.run.done ? percent(weightError(law, own)) : "…"],
      ["Evaluations per particle", String(this.run.calls)],
    ];
  }

  sentence() {
    if (this.state.score !== "exact") return FAULTS[this.state.score][1];
    if (this.state.edit)
      return "Move, rotate and reweight the modes: distribution, score and particles follow, because all have closed forms.";
    if (this.state.dir === "forward")
      return "Data become noise: the contours are the exact distribution at time t, the dots a simulation of the forward process.";
    return "Each dot is a particle that moves from noise to data; the blue lines enclose 50, 80, 95 and 99 % of the exact distribution.";
  }

  describe() {
    const [value] = this.distance(),
      {law} = this.scene,
      x = seenAt(this.run, this.t);
    const mean = [0, 1].map((j) => signed(x.filter((_, i) => i % 2 === j).reduce((a, b) => a + b, 0) / this.run.n));
    return `At t = ${signed(this.t)}, ${this.run.n} particles in the plane with mean (${mean.join(", ")}) over the exact density of ${law.K} components; sliced W2 to it ${value.toFixed(3)}.`;
  }

  rows() {
    const x = seenAt(this.run, this.t),
      end = this.run instanceof ForwardRun ? this.run.frames.at(-1) : this.run.x;
    return {
      head: ["particle", `x1(t=${signed(this.t, 3)})`, "x2(t)", "x1(end)", "x2(end)"],
      rows: Array.from({length: this.run.n}, (_, i) => [i, x[2 * i], x[2 * i + 1], end[2 * i], end[2 * i + 1]]),
    };
  }

  // A law is edited where its modes are at the time of the cursor.
  get grip() {
    const {sde, unit} = this.scene;
    return unit(this.seenT) * Math.max(0.05, sde.alpha(this.seenT));
  }

  handles() {
    return grips(this.app, this.frame, this.state, this.scene.law, this.grip);
  }

  click(px, py) {
    this.probe =
      this.probe && Math.hypot(this.frame.X(this.probe[0]) - px, this.frame.Y(this.probe[1]) - py) < 12
        ? null
        : this.frame.has(px, py)
          ? this.frame.at(px, py)
          : null;
    this.app.dirty = true;
  }
}
