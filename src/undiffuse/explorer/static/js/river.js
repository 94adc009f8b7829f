// V1 River: the exact law of x_t for all t as a heat map, and simulated paths over it.
import {drawPaths, reach, riverGrid} from "./riverbed.js";
import {FAULTS} from "./museum.js";
import {Frame, axes, ticks} from "./pen.js";
import {heat, histogram} from "./paint.js";
import {SIMULATED, ForwardRun, keyOf, percent, runOf, sceneOf, seenAt, signed, workOn} from "./scene.js";
import {Dropped} from "./dropped.js";
import {Solution} from "./solution.js";
import {floorOf, kolmogorov, owners, quantile, quantiles, w1, weightError} from "./metrics.js";

export class River {
  constructor(app) {
    this.app = app;
  }

  static controls = ["law", "score", ...SIMULATED, "show", "cells", "scale", "gamma"];

  set(state) {
    this.state = state;
    this.see(state);
    const {law, sde, model} = this.scene,
      key = keyOf(state, "t", "drop", "show", "gamma", "cells");
    if (key !== this.runKey) {
      this.runKey = key;
      this.own = null;
      this.run =
        state.dir === "forward"
          ? new ForwardRun(sde, law.sample(state.p, state.seed).x, state.p, 1, state.n, state.seed)
          : runOf(state, model);
    }
    this.dropped = state.drop ? new Dropped(this.scene, state.seed, ...state.drop.split(",").map(Number)) : null;
    this.solution = state.cells ? new Solution(this.scene, state.cells, this.solution) : null;
  }

  // Law and process, and what is drawn of them alone.
  see(state) {
    const key = [state.law, state.sde, state.scale, state.score].join();
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf(state), picture: null, lines: null, floors: new Map(), wanted: new Map()});
  }

  work(deadline) {
    return workOn([this.run], deadline);
  }

  get t() {
    return this.state.t * this.scene.sde.T;
  }

  layout(pen) {
    const {scene} = this,
      high = reach(scene),
      T = scene.sde.T;
    const strip = pen.small ? 34 : 64,
      left = pen.small ? 40 : 58,
      foot = pen.small ? 170 : 46,
      side = pen.small ? 0 : 210;
    const frame = new Frame(
      left + strip,
      14,
      pen.w - left - 2 * strip - side - 14,
      pen.h - foot - 22,
      0,
      T,
      -high,
      high,
    );
    const panel = pen.small
      ? new Frame(left, pen.h - 116, pen.w - left - 20, 82, -high, high, 0, 1)
      : new Frame(pen.w - side + 34, 34, side - 50, 190, -high, high, 0, 1);
    return {frame, strip, panel};
  }

  draw(pen) {
    const {scene, run} = this,
      {frame, strip, panel} = (this.places = this.layout(pen));
    const size = `${frame.y1}`;
    if (this.pictured !== size) Object.assign(this, {picture: null, pictured: size});
    this.picture ??= riverGrid(scene, frame);
    pen.clip(frame, () => {
      heat(pen, frame, this.picture, this.state.gamma, this.top());
      if (["lines", "both"].includes(this.state.show)) this.drawLines(pen, frame);
      if (["paths", "both"].includes(this.state.show))
        drawPaths(pen, frame, run, this.t, {unit: scene.unit, colours: this.colours(pen)});
      this.solution?.draw(pen, frame, this.picture, this.top());
      this.dropped?.draw(pen, frame);
    });
    axes(pen, frame, {x: "time t   (0: data, T: noise)", y: "", yTicks: []});
    this.drawBorder(pen, frame, 0, -strip);
    this.drawBorder(pen, frame, scene.sde.T, strip);
    axes(pen, new Frame(frame.x - strip, frame.y, 1, frame.h, 0, 1, frame.y0, frame.y1), {
      xTicks: [],
      yTicks: ticks(frame.y0, frame.y1, pen.small ? 4 : 7),
      y: this.scaled() ? "x, scaled" : "x",
    });
    pen.line(
      [
        [frame.X(this.t), frame.y - 4],
        [frame.X(this.t), frame.y + frame.h + 4],
      ],
      {colour: pen.ink, width: 1.4},
    );
    this.drawPanel(pen, panel);
  }

  scaled() {
    return this.scene.unit(this.scene.sde.T) !== 1;
  }

  // The density at which the colour is full: modes of no width would leave all else pale.
  top() {
    const sorted = Float64Array.from(this.picture.values).sort();
    return sorted[Math.floor(0.992 * sorted.length)];
  }

  colours(pen) {
    const {law} = this.scene;
    if (law.K > 8) return () => pen.made;
    if (!this.own && (this.run.done || this.run instanceof ForwardRun)) this.own = this.destinations();
    return (p) => (this.own ? pen.modes[this.own[p] % pen.modes.length] : pen.made);
  }

  destinations() {
    const {
      run,
      scene: {law},
    } = this;
    return owners(law, run instanceof ForwardRun ? run.frames[0] : run.frames.at(-1), run.n, 1, 1e-6);
  }

  drawLines(pen, frame) {
    const {law, sde, unit} = this.scene;
    this.lines ??= [0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98].map((u) =>
      Array.from({length: 90}, (_, i) => {
        const t = sde.T * Math.max(1e-4, i / 89);
        return [t, unit(t) * quantile(law, u, sde.alpha(t), sde.variance(t))];
      }),
    );
    this.lines.forEach((points) =>
      pen.line(
        points.map(([t, x]) => [frame.X(t), frame.Y(x)]),
        {colour: pen.ink, width: 1.2, alpha: 0.75},
      ),
    );
  }

  density(t, x) {
    const {law, sde, unit} = this.scene,
      c = unit(t);
    return Math.exp(law.at(sde.alpha(t), sde.variance(t)).logProb(Float64Array.of(x / c))) / c;
  }

  // Exact curve and histogram at a time, over `bins` cells of the picture's height.
  marginal(t, frame, bins = 48) {
    const s = Math.max(t, 1e-4 * this.scene.sde.T),
      c = this.scene.unit(s),
      x = seenAt(this.run, t).map((v) => v * c);
    const high = frame.y1,
      curve = Array.from({length: 161}, (_, i) => [-high + (i / 80) * high, 0]);
    curve.forEach((point) => {
      point[1] = this.density(s, point[0]);
    });
    return {curve, bars: histogram(x, -high, high, bins), top: Math.max(...curve.map(([, p]) => p))};
  }

  drawBorder(pen, frame, t, width) {
    const x = t ? frame.x + frame.w : frame.x,
      bins = 48,
      {curve, bars, top} = this.marginal(t, frame, bins);
    const scale = (0.9 * width) / top;
    if (this.run.done)
      bars.forEach((value, i) => {
        const y = frame.Y(frame.y0 + ((i + 1) / bins) * (frame.y1 - frame.y0)),
          reachOf = Math.sign(width) * Math.min(Math.abs(width), Math.abs(value * scale));
        pen.box(Math.min(x, x + reachOf), y, Math.abs(reachOf), frame.h / bins - 0.5, pen.made, 0.4);
      });
    pen.line(
      curve.map(([v, p]) => [x + p * scale, frame.Y(v)]),
      {colour: pen.real, width: 1.6},
    );
  }

  drawPanel(pen, panel) {
    const {curve, bars, top} = this.marginal(this.t, this.places.frame),
      bins = bars.length;
    const f = new Frame(panel.x, panel.y, panel.w, panel.h, panel.x0, panel.x1, 0, 1.15 * Math.max(top, 1e-9));
    bars.forEach((value, i) => {
      const h = Math.min(f.h, (value / f.y1) * f.h);
      pen.box(f.x + (i / bins) * f.w, f.y + f.h - h, f.w / bins - 0.5, h, pen.made, 0.45);
    });
    pen.line(
      curve.map(([v, p]) => [f.X(v), f.Y(p)]),
      {colour: pen.real, width: 1.8},
    );
    this.solution?.drawAt(pen, f, this.t);
    axes(pen, f, {yTicks: [], xTicks: ticks(f.x0, f.x1, 4), x: pen.small ? "" : this.scaled() ? "x, scaled" : "x"});
    pen.text(`Distribution at t = ${signed(this.t)}`, f.x, f.y - 10, {size: 12, colour: pen.ink});
    if (!pen.small) pen.key([["exact", pen.real]], f.x, f.y + f.h + 54);
    if (!pen.small) pen.key([["particles", pen.made]], f.x + 70, f.y + f.h + 54);
    if (!pen.small && this.solution) pen.key([["Fokker–Planck, solved", pen.ink, true]], f.x, f.y + f.h + 74);
  }

  // W₁ at the cursor with what it is for perfect draws, both in units of the picture.
  distance() {
    const {law, sde} = this.scene,
      n = this.run.n,
      t = Math.max(this.t, 1e-4 * sde.T),
      key = `${t} ${n}`;
    if (!this.wanted.has(key)) {
      this.wanted.clear();
      this.wanted.set(key, quantiles(law, n, sde.alpha(t), sde.variance(t)));
    }
    const wanted = this.wanted.get(key),
      c = this.scene.unit(t);
    if (!this.floors.has(n))
      this.floors.set(
        n,
        floorOf(
          law,
          n,
          (
            (at0) => (x) =>
              w1(x, at0)
          )(quantiles(law, n)),
        ),
      );
    return {value: c * w1(seenAt(this.run, this.t), wanted), floor: this.floors.get(n)};
  }

  numbers() {
    const {law, sde} = this.scene,
      x = seenAt(this.run, this.t),
      t = Math.max(this.t, 1e-4 * sde.T);
    const {value, floor} = this.distance();
    return [
      ["W₁ to the exact distribution", value.toFixed(3)],
      ["W₁ of exact samples (t = 0)", `${floor.mean.toFixed(3)} ± ${floor.std.toFixed(3)}`],
      [
        "Largest difference of the distribution functions",
        kolmogorov(x, law, sde.alpha(t), sde.variance(t)).toFixed(3),
      ],
      [
        "Error of the modes' weights",
        this.run.done
          ? percent(
              weightError(
                law,
                owners(law, this.run instanceof ForwardRun ? this.run.frames[0] : this.run.x, this.run.n, 1, 1e-6),
              ),
            )
          : "…",
      ],
      ["Evaluations per path", String(this.run.calls)],
      ...(this.solution ? [["Fokker–Planck, misplaced mass", percent(this.solution.distance(this.t))]] : []),
    ];
  }

  sentence() {
    const {dir, method, score} = this.state;
    if (score !== "exact") return FAULTS[score][1];
    if (this.solution && !this.state.drop)
      return "The heavy lines solve the Fokker–Planck equation on cells, the blue lines are exact: with more cells they agree.";
    if (this.state.drop)
      return "Ten trajectories of the SDE from one point (dashed), in both directions, and the one ODE trajectory through it.";
    if (dir === "forward")
      return "Data become noise: every trajectory is random, their distribution is exact and smooth.";
    return `Noise on the right flows to the data on the left; ${method === "euler_maruyama" && this.state.eta ? "each trajectory is random" : "follow one trajectory back"}, and the blue background is the exact distribution.`;
  }

  describe() {
    const {law} = this.scene,
      {value} = this.distance(),
      own = owners(law, seenAt(this.run, 0), this.run.n, 1, 1e-6);
    const shares = Array.from(
      {length: Math.min(law.K, 6)},
      (_, k) => `${percent(own.filter((o) => o === k).length / own.length)} at ${signed(law.means[k], 1)}`,
    );
    return `At t = ${signed(this.t)}, ${this.run.n} particles over the exact density of ${law.K} component${law.K > 1 ? "s" : ""}; of the trajectories ${shares.join(", ")}; W1 to the exact distribution ${value.toFixed(3)}.`;
  }

  rows() {
    const x = seenAt(this.run, this.t),
      end = this.run instanceof ForwardRun ? this.run.frames.at(-1) : this.run.x;
    return {
      head: ["particle", `x(t=${signed(this.t, 3)})`, "x(end)"],
      rows: Array.from({length: this.run.n}, (_, i) => [i, x[i], end[i]]),
    };
  }

  handles() {
    const {frame} = this.places,
      {dropped} = this,
      [share, x] = dropped ? [dropped.t / this.scene.sde.T, dropped.x] : [0.5, 0];
    return [
      {
        name: "Dropped particle",
        at: [frame.X(share * this.scene.sde.T), frame.Y(x)],
        show: Boolean(dropped),
        value: [share, x],
        step: [0.02, 0.1],
        move: (px, py) => this.drop(...frame.at(px, py)),
        set: (u, v) => this.drop(u * this.scene.sde.T, v),
      },
      ...(dropped?.ends(frame, (t, y) => this.drop(t, y)) ?? []),
    ];
  }

  drop(t, x) {
    const share = Math.min(0.99, Math.max(0.01, t / this.scene.sde.T));
    this.app.set({drop: `${Number(share.toFixed(3))},${Number(x.toFixed(6))}`});
  }

  click(px, py) {
    const {frame} = this.places;
    if (frame.has(px, py)) this.drop(...frame.at(px, py));
  }

  // Dragging beside the paths moves the time.
  scrub(px, py) {
    const {frame} = this.places;
    return frame.has(px, py, 30) ? Math.min(1, Math.max(0, frame.at(px, py)[0] / frame.x1)) : null;
  }
}
