// V9 Likelihood: the ODE takes data to noise and back without loss, and its divergence adds up to log p.
import {Frame, axes, decades, power10, ticks} from "./pen.js";
import {Run, endOf} from "./sampling.js";
import {contours, heat} from "./paint.js";
import {divergences, logsAlong, probesOf} from "./likelihood.js";
import {flow} from "./flow.js";
import {keyOf, sceneOf, signed} from "./scene.js";
import {planeGrid, windowOf} from "./cloud.js";
import {pointsOf} from "./points.js";
import {timeGrid} from "./grid.js";

const BETWEEN = 25,
  PROBES = 60,
  SIZES = [4, 8, 16, 32, 64, 128, 256],
  GRID = "log_snr";

export class Latent {
  constructor(app) {
    this.app = app;
  }

  static controls = ["law", "sde", "n", "a", "b", "seed"];

  get timeless() {
    return true;
  }

  set(state) {
    const key = keyOf(state, "t");
    this.state = state;
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf({...state, score: "exact"}), grids: null});
    this.points = pointsOf(state, this.scene.law);
    this.encode();
    this.journey = this.likelihood();
    this.errors = this.roundTrips();
  }

  work() {
    return false;
  }

  times(steps) {
    const {model, sde} = this.scene;
    return timeGrid(sde, steps, GRID, endOf(model), model.deviation);
  }

  // Both points to the noise, and what lies between their latents back to the data.
  encode() {
    const {model} = this.scene,
      steps = this.state.n;
    this.path = flow(model, Float64Array.from(this.points.flat()), 2, this.times(steps).reverse());
    const z = this.path.at(-1),
      from = Array.from({length: BETWEEN}, (_, i) => i / (BETWEEN - 1)).flatMap((u) => [
        (1 - u) * z[0] + u * z[2],
        (1 - u) * z[1] + u * z[3],
      ]);
    this.run = new Run(model, {n: BETWEEN, method: "heun", steps, grid: GRID, from}).finish();
  }

  // log p along the path of the first point: from the noise by the divergence, exactly, and with one probe at a time.
  likelihood() {
    const {law, sde, model} = this.scene,
      times = this.times(this.state.n).reverse(),
      at = this.path.map((frame) => frame.subarray(0, 2)),
      exact = times.map((t, i) => law.at(sde.alpha(t), sde.variance(t)).logProb(at[i])),
      last = [exact.at(-1)];
    const slopes = times.map((t, i) => divergences(model, at[i], 1, t)),
      vectors = probesOf(this.state.seed, PROBES, 2),
      probed = times.map((t, i) => divergences(model, repeated(at[i], PROBES), PROBES, t, vectors));
    return {
      times,
      exact,
      summed: logsAlong(times, slopes, last).map(([value]) => value),
      probes: logsAlong(times, probed, new Float64Array(PROBES).fill(last[0]))[0],
    };
  }

  // How far the first point is from itself after the way to the noise and back.
  roundTrips() {
    const {model} = this.scene,
      x = Float64Array.from(this.points[0]);
    return ["euler", "heun"].map((method) => [
      method,
      SIZES.map((steps) => {
        const times = this.times(steps),
          z = flow(model, x, 1, [...times].reverse(), method).at(-1),
          back = flow(model, z, 1, times, method).at(-1);
        return [steps, Math.hypot(back[0] - x[0], back[1] - x[1])];
      }),
    ]);
  }

  layout(pen) {
    const [w, h] = [pen.w / 2, pen.small ? pen.h * 0.5 : pen.h * 0.56],
      left = pen.small ? 30 : 48;
    return {
      data: [left, 24, w - left - 8, h - 62],
      noise: [w + left, 24, w - left - 8, h - 62],
      log: [left + 14, h + 22, w - left - 22, pen.h - h - 64],
      error: [w + left + 14, h + 22, w - left - 22, pen.h - h - 64],
    };
  }

  draw(pen) {
    const {law, sde} = this.scene,
      places = this.layout(pen),
      put = ([x, y, w, h]) => windowOf(law, w, h, x, y);
    this.frame = put(places.data);
    this.drawPlane(pen, this.frame, 0, "Data");
    this.drawPlane(pen, this.scaledNoise(put(places.noise)), sde.T, "Noise");
    this.drawLogs(pen, places.log);
    this.drawErrors(pen, places.error);
  }

  // The plane of the noise reaches as far as its law does.
  scaledNoise(frame) {
    const {sde, law} = this.scene,
      {T} = sde,
      reach = (3 * Math.hypot(sde.alpha(T) * law.deviation, sde.sigma(T))) / Math.min(frame.x1, frame.y1);
    return new Frame(frame.x, frame.y, frame.w, frame.h, reach * frame.x0, reach * frame.x1, reach * frame.y0, reach * frame.y1);
  }

  drawPlane(pen, frame, t, title) {
    const {law, sde, model} = this.scene,
      s = Math.max(t, endOf(model)),
      key = `${title} ${frame.w} ${frame.h}`,
      x = t ? this.run.frames[0] : this.run.frames.at(-1),
      ends = t ? this.path.at(-1) : this.path[0];
    this.grids ??= new Map();
    if (!this.grids.has(key)) this.grids.set(key, planeGrid(law.at(sde.alpha(s), sde.variance(s)), frame, 1));
    const at = (points, i) => [frame.X(points[2 * i]), frame.Y(points[2 * i + 1])];
    pen.clip(frame, () => {
      heat(pen, frame, this.grids.get(key), 0.6);
      contours(pen, frame, this.grids.get(key), [0.5, 0.95]);
      pen.line([at(ends, 0), at(ends, 1)], {colour: pen.ink, alpha: t ? 0 : 0.6, dash: [3, 4]});
      pen.line(
        Array.from({length: BETWEEN}, (_, i) => at(x, i)),
        {colour: pen.made, width: 1.4},
      );
      for (let i = 0; i < BETWEEN; i++) pen.mark(...at(x, i), 2.6, 0, pen.made);
      for (const i of [0, 1]) pen.mark(...at(ends, i), 6, i, pen.ink);
    });
    axes(pen, frame, {xTicks: ticks(frame.x0, frame.x1, 4), yTicks: ticks(frame.y0, frame.y1, 4)});
    pen.text(title, frame.x, frame.y - 9, {size: 13, colour: pen.ink});
    for (const i of [0, 1])
      pen.text("ab"[i], at(ends, i)[0] + 9, at(ends, i)[1] - 7, {size: 13, colour: pen.ink, halo: true});
  }

  // log p_t(x_t) of the first point from the data to the noise.
  drawLogs(pen, [x, y, w, h]) {
    const {times, exact, summed, probes} = this.journey,
      T = this.scene.sde.T,
      middle = Float64Array.from(probes).sort().subarray(PROBES / 4, (3 * PROBES) / 4),
      all = [...exact, ...summed, ...middle],
      low = all.reduce((a, b) => Math.min(a, b)),
      high = all.reduce((a, b) => Math.max(a, b), low + 0.5),
      frame = new Frame(x, y, w, h, -0.06 * T, T, low - 0.06 * (high - low), high + 0.06 * (high - low)),
      points = (values) => values.map((v, i) => [frame.X(times[i]), frame.Y(v)]);
    pen.clip(frame, () =>
      probes.forEach((v, i) => pen.mark(frame.X(-0.03 * T) + ((i % 7) - 3) * 1.6, frame.Y(v), 1.6, 0, pen.made, 0.5)),
    );
    pen.line(points(exact), {colour: pen.real, width: 2.4});
    points(summed).forEach(([px, py]) => pen.mark(px, py, 1.7, 0, pen.made));
    axes(pen, frame, {x: pen.small ? "" : "time t", xTicks: ticks(0, T, 4), yTicks: ticks(frame.y0, frame.y1, 3)});
    pen.text(pen.small ? "log p of a" : "log p along the trajectory of a; at the left with one random probe each", x, y - 8, {colour: pen.ink});
  }

  drawErrors(pen, [x, y, w, h]) {
    const logs = this.errors.flatMap(([, points]) => points.map(([, e]) => Math.log10(Math.max(e, 1e-14)))),
      low = Math.floor(logs.reduce((a, b) => Math.min(a, b))),
      high = Math.ceil(logs.reduce((a, b) => Math.max(a, b))),
      frame = new Frame(x, y, w, h, Math.log10(3), Math.log10(300), low, high);
    this.errors.forEach(([method, points], i) => {
      const colour = pen.modes[i],
        at = points.map(([n, e]) => [frame.X(Math.log10(n)), frame.Y(Math.log10(Math.max(e, 1e-14)))]);
      pen.line(at, {colour, width: 1.8});
      at.forEach(([px, py]) => pen.mark(px, py, 3.2, i, colour));
      pen.text(method === "euler" ? "Euler" : "Heun", at.at(-1)[0] - 4, at.at(-1)[1] - 8, {align: "right", size: 11, colour: pen.ink, halo: true});
    });
    axes(pen, frame, {
      x: pen.small ? "" : "steps N",
      xTicks: [4, 16, 64, 256].map(Math.log10),
      xFormat: (v) => String(Math.round(10 ** v)),
      yTicks: decades(low, high),
      yFormat: power10,
    });
    pen.text(pen.small ? "Round trip" : "Round-trip error of a (encode, then decode)", x, y - 8, {colour: pen.ink});
  }

  numbers() {
    const {exact, summed, probes} = this.journey,
      mean = probes.reduce((a, b) => a + b, 0) / PROBES,
      spread = Math.sqrt(probes.reduce((sum, v) => sum + (v - mean) ** 2, 0) / (PROBES - 1));
    return [
      ["log p of a, exact", signed(exact[0], 4)],
      ["by the divergence", signed(summed[0], 4)],
      [`by ${PROBES} probes`, `${signed(mean, 3)} ± ${(spread / Math.sqrt(PROBES)).toFixed(3)}`],
    ];
  }

  sentence() {
    return "Points on a straight line between the latents of a and b (right) decode to where the data are (left).";
  }

  describe() {
    const [[, euler], [, heun]] = this.errors;
    return `a at ${this.points[0].map((v) => signed(v)).join(", ")}, b at ${this.points[1].map((v) => signed(v)).join(", ")}; ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}; round trip with ${SIZES.at(-1)} steps: Euler ${euler.at(-1)[1].toExponential(1)}, Heun ${heun.at(-1)[1].toExponential(1)}.`;
  }

  rows() {
    const x = this.run.x,
      z = this.run.frames[0];
    return {
      head: ["point", "latent 1", "latent 2", "x1", "x2"],
      rows: Array.from({length: BETWEEN}, (_, i) => [i, z[2 * i], z[2 * i + 1], x[2 * i], x[2 * i + 1]]),
    };
  }

  handles() {
    const {frame} = this;
    return ["a", "b"].map((name, i) => {
      const set = (u, v) => this.app.set({[name]: [u, v].map((value) => Number(fit(value).toFixed(3))).join()});
      return {
        name: `Point ${name}`,
        at: [frame.X(this.points[i][0]), frame.Y(this.points[i][1])],
        value: this.points[i],
        step: [0.1, 0.1],
        set,
        move: (px, py) => set(...frame.at(px, py)),
      };
    });
  }
}

const fit = (v) => Math.min(6, Math.max(-6, v));

const repeated = (x, n) => Float64Array.from({length: n * x.length}, (_, i) => x[i % x.length]);
