// V4 Error lab: what an evaluation buys, and one path at several numbers of steps.
import {Frame, axes, decades, power10, ticks} from "./pen.js";
import {Run} from "./sampling.js";
import {gridOf, keyOf, optionsOf, sceneOf, signed} from "./scene.js";
import {METHODS} from "./steps.js";
import {measured, slopeOf} from "./errors.js";

const LEVELS = [8, 32, 128, 512],
  SHOWN = 5;
const MEASURES = {
  path: "median distance to the exact endpoint",
  law: "distance to the exact distribution",
  weights: "error of the modes' weights",
};

export class Lab {
  constructor(app) {
    this.app = app;
  }

  static controls = ["solvers", "measure", "law", "sde", "method", "eta", "grid", "p", "seed"];

  get timeless() {
    return true;
  }

  set(state) {
    const {method} = state,
      key = keyOf(state, "t", "n", "method", "path");
    this.state = state;
    if (key !== this.key) {
      Object.assign(this, {key, scene: sceneOf({...state, score: "exact"}), points: [], floor: null});
      this.start(state);
    }
    const pathKey = `${key} ${method}`;
    if (pathKey !== this.pathKey) Object.assign(this, {pathKey, paths: [], run: null});
  }

  // The measuring goes on in a worker; where there can be none, here between two pictures.
  start(state) {
    this.worker?.terminate();
    this.worker = this.pending = null;
    const {source, data} = this.app.options;
    try {
      this.worker = new Worker(URL.createObjectURL(new Blob([`(${source})().work(self)`], {type: "text/javascript"})));
      this.measuring = true;
      this.worker.onmessage = ({data: point}) => this.take(point);
      this.worker.onerror = () => this.fallBack(state);
      this.worker.postMessage({state, laws: data.laws});
    } catch {
      this.fallBack(state);
    }
  }

  fallBack(state) {
    this.worker = null;
    this.pending = measured(state);
    this.app.working = true;
  }

  take(point) {
    if (point.floor) this.floor = point.floor;
    else if (!point.done) this.points.push(point);
    this.measuring = !point.done;
    this.app.dirty = true;
  }

  work(deadline) {
    while (this.paths.length < LEVELS.length) {
      if (performance.now() > deadline) return true;
      this.paths.push(this.path(LEVELS[this.paths.length]));
    }
    if (this.pending) {
      const {value, done} = this.pending.next();
      this.take(done ? {done} : value);
      if (done) this.pending = null;
      return !done;
    }
    return this.measuring;
  }

  path(steps) {
    const {
        state,
        scene: {model},
      } = this,
      {method} = state;
    return new Run(model, {
      n: SHOWN,
      method,
      steps,
      grid: gridOf(state, method),
      seed: state.seed,
      path: true,
      options: optionsOf(state, method),
    }).finish();
  }

  draw(pen) {
    if (pen.small) {
      this.drawErrors(pen, 54, 26, pen.w - 66, 0.62 * pen.h - 74);
      this.drawPaths(pen, 54, 0.62 * pen.h + 18, pen.w - 66, 0.38 * pen.h - 58);
    } else {
      const w = pen.w * 0.55;
      this.drawErrors(pen, 54, 26, w - 74, pen.h - 74);
      this.drawPaths(pen, w + 50, 26, pen.w - w - 66, pen.h - 74);
    }
  }

  curves() {
    return this.state.solvers.map((method) => [method, this.points.filter((point) => point.method === method)]);
  }

  drawErrors(pen, x, y, w, h) {
    const calls = this.points.map((p) => Math.log10(p.calls)),
      errors = this.points.map((p) => Math.log10(Math.max(p.error, 1e-12)));
    if (this.floor) errors.push(Math.log10(this.floor.mean));
    const top = Math.ceil(Math.max(0, ...errors) * 2) / 2,
      low = Math.floor(Math.min(-1, ...errors));
    const frame = new Frame(x, y, w, h, Math.log10(2), Math.max(2.5, ...calls) + 0.08, low, top);
    for (const v of decades(low, top))
      pen.line(
        [
          [x, frame.Y(v)],
          [x + w, frame.Y(v)],
        ],
        {colour: pen.rule, alpha: 0.6},
      );
    if (this.floor) this.drawFloor(pen, frame);
    if (!pen.small) this.drawOrders(pen, frame);
    this.curves().forEach(([method, points], i) => this.drawCurve(pen, frame, method, points, i));
    axes(pen, frame, {
      x: "evaluations of the model",
      xTicks: decades(frame.x0, frame.x1),
      xFormat: power10,
      yTicks: decades(low, top),
      yFormat: power10,
    });
    pen.text(`Error: ${MEASURES[this.state.measure]}`, x - 40, y - 10, {size: 12, colour: pen.ink});
  }

  drawFloor(pen, frame) {
    const {mean, std} = this.floor,
      high = frame.Y(Math.log10(mean + 2 * std)),
      low = frame.Y(Math.log10(Math.max(1e-9, mean - 2 * std)));
    pen.box(frame.x, high, frame.w, Math.min(frame.y + frame.h, low) - high, pen.muted, 0.16);
    pen.text("exact samples", frame.x + frame.w - 4, high - 5, {size: 11, align: "right"});
  }

  drawCurve(pen, frame, method, points, i) {
    const colour = pen.modes[i % pen.modes.length],
      at = (p) => [frame.X(Math.log10(p.calls)), frame.Y(Math.log10(Math.max(p.error, 1e-12)))];
    pen.clip(new Frame(frame.x - 6, frame.y - 6, frame.w + 12, frame.h + 12), () => {
      pen.line(points.map(at), {colour, width: 1.8, dash: METHODS[method].sde ? [6, 4] : []});
      for (const p of points) {
        if (p.spread)
          pen.line(
            [p.error - p.spread, p.error + p.spread].map((e) => [at(p)[0], frame.Y(Math.log10(Math.max(1e-12, e)))]),
            {colour},
          );
        pen.mark(...at(p), 3.4, i, colour);
      }
    });
    const gap = pen.small ? 13 : 16,
      foot = frame.y + frame.h - 12 - gap * (this.state.solvers.length - 1 - i);
    pen.mark(frame.x + 10, foot, 3.4, i, colour);
    const slope = this.state.measure === "path" ? slopeOf(points) : null;
    pen.text(METHODS[method].label + (slope === null ? "" : `, slope ${signed(slope, 1)}`), frame.x + 19, foot + 4, {
      size: pen.small ? 10 : 11.5,
      colour: pen.ink,
      halo: true,
    });
  }

  // What the slopes ½, 1, 2 and 4 look like.
  drawOrders(pen, frame) {
    const from = [frame.x + frame.w - 78, frame.y + 14],
      decade = 44,
      unit = ((frame.h / (frame.y1 - frame.y0)) * decade) / (frame.w / (frame.x1 - frame.x0));
    for (const [order, name] of [
      [0.5, "½"],
      [1, "1"],
      [2, "2"],
      [4, "4"],
    ]) {
      const reach = Math.min(1, (0.7 * frame.h) / (order * unit)),
        to = [from[0] + decade * reach, from[1] + order * unit * reach];
      pen.line([from, to], {colour: pen.muted, alpha: 0.7});
      pen.text(name, to[0] + 5, to[1] + 4, {size: 10});
    }
    pen.text("slopes", from[0], from[1] - 5, {size: 10});
  }

  // The same Brownian path, or the same start of the ODE, at rising numbers of steps.
  drawPaths(pen, x, y, w, h) {
    const {
        scene: {law, sde, unit},
        paths,
      } = this,
      flat = law.d === 2,
      all = paths.flatMap((run) =>
        run.frames.flatMap((f, i) => [...f].map((v) => v * (flat ? 1 : unit(run.stamps[i])))),
      );
    const low = all.reduce((m, v) => Math.min(m, v), -0.5),
      high = all.reduce((m, v) => Math.max(m, v), 0.5),
      rim = 0.04 * (high - low);
    const frame = new Frame(x, y, w, h, flat ? low - rim : 0, flat ? high + rim : sde.T, low - rim, high + rim);
    const shade = (k) => ({
      colour: k === paths.length - 1 ? pen.ink : pen.made,
      alpha: [0.35, 0.6, 0.95, 1][k],
      width: [1, 1.2, 1.4, 1.6][k],
    });
    pen.clip(frame, () =>
      paths.forEach((run, k) => {
        for (let p = 0; p < SHOWN; p++) {
          pen.line(
            run.frames.map((f, i) =>
              flat
                ? [frame.X(f[2 * p]), frame.Y(f[2 * p + 1])]
                : [frame.X(run.stamps[i]), frame.Y(unit(run.stamps[i]) * f[p])],
            ),
            shade(k),
          );
          if (k === 0 && !flat)
            run.frames.forEach((f, i) =>
              pen.mark(frame.X(run.stamps[i]), frame.Y(unit(run.stamps[i]) * f[p]), 2.6, 0, pen.made, 0.7),
            );
        }
      }),
    );
    axes(pen, frame, flat ? {x: "x₁", y: "x₂"} : {x: "time t", xTicks: ticks(0, sde.T, 4)});
    pen.text(
      `${METHODS[this.state.method].label}: the same trajectories with ${LEVELS.slice(0, paths.length).join(", ")} steps`,
      x - 40,
      y - 10,
      {size: 12, colour: pen.ink},
    );
  }

  numbers() {
    const goal = this.state.measure === "path" ? 0.01 : this.floor ? this.floor.mean + 2 * this.floor.std : 0.05;
    const first = this.curves().map(([method, points]) => [method, points.find(({error}) => error <= goal)]);
    return first.map(([method, point]) => [
      `${METHODS[method].label}: evaluations to ${goal.toPrecision(2)}`,
      point ? String(point.calls) : this.measuring ? "…" : "not reached",
    ]);
  }

  sentence() {
    return this.state.measure === "path"
      ? "On logarithmic axes the slope of a line is the order of the solver: how much the error falls when the work doubles."
      : "The distribution error falls until it reaches the sampling noise that exact samples also have: the grey band.";
  }

  describe() {
    return `Error against evaluations of ${this.state.solvers.length} samplers; ${this.numbers()
      .map(([name, value]) => `${name}: ${value}`)
      .join("; ")}.`;
  }

  rows() {
    return {
      head: ["sampler", "steps", "evaluations", "error", "spread"],
      rows: this.points.map((p) => [p.method, p.steps, p.calls, p.error, p.spread]),
    };
  }
}
