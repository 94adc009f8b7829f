// V3 Compare: two to four rivers of the same data and the same random numbers, with their coefficients below.
import {Frame, axes, ticks} from "./pen.js";
import {heat} from "./paint.js";
import {drawPaths, reach, riverGrid} from "./riverbed.js";
import {keyOf, runOf, sceneOf, signed, workOn} from "./scene.js";
import {FAULTS} from "./museum.js";
import {METHODS} from "./steps.js";
import {PROCESSES} from "./processes.js";
import {owners, quantiles, w1} from "./metrics.js";

export class Compare {
  constructor(app) {
    this.app = app;
  }

  static controls = ["panes", "law", "method", "eta", "n", "grid", "path", "p", "seed", "axis", "scale", "gamma"];

  set(state) {
    const key = keyOf(state, "t", "axis", "gamma");
    this.state = state;
    if (key === this.key) return;
    this.key = key;
    this.panes = state.panes.split("|").map((text) => this.pane(state, ...text.split("~")));
    this.scene = this.panes[0].scene;
    this.run = this.panes[0].run;
  }

  pane(state, sde, method = state.method, eta = state.eta, score = "exact") {
    const scene = sceneOf({...state, sde, score}),
      run = runOf({...state, sde}, scene.model, {method, eta: Number(eta)});
    return {
      sde,
      method,
      eta: Number(eta),
      scene,
      run,
      wanted: quantiles(scene.law, state.p),
      own: null,
      title: PROCESSES[sde.split(":")[0]][0].replace(/.*\((.*)\)/, "$1"),
      dynamics: METHODS[method].sde && eta > 0 ? `SDE, η = ${eta}` : "ODE",
      score,
    };
  }

  work(deadline) {
    return workOn(
      this.panes.map((pane) => pane.run),
      deadline,
    );
  }

  layout(pen) {
    const n = this.panes.length,
      faulty = this.faulty,
      across = pen.small || (faulty && n === 4) ? Math.min(2, n) : n,
      down = Math.ceil(n / across),
      left = 44,
      gap = pen.small ? 26 : 30;
    const w = (pen.w - left - 10 - gap * (across - 1)) / across,
      h = pen.h / down;
    return this.panes.map((_, i) => {
      const x = left + (i % across) * (w + gap),
        y = Math.floor(i / across) * h,
        lower = faulty ? 0 : pen.small ? 34 : Math.min(120, 0.24 * h);
      return {
        river: [x, y + 26, w, h - lower - (pen.small || faulty ? 62 : 108)],
        curve: [x, y + h - lower - (pen.small ? 18 : 40), w, lower],
        first: i % across === 0,
      };
    });
  }

  // Panes with a mistake in them stand in a square, and need no curves below: they differ in nothing else.
  get faulty() {
    return this.panes.some(({score}) => score !== "exact");
  }

  headOf({title, dynamics, score}) {
    if (!this.faulty) return `${title} · ${dynamics}`;
    return score === "exact" ? "No error" : FAULTS[score][0].replace(/^./, (c) => c.toUpperCase());
  }

  draw(pen) {
    const places = this.layout(pen),
      height = Math.max(...this.panes.map(({scene}) => reach(scene)));
    this.panes.forEach((pane, i) => this.drawPane(pen, pane, places[i], height));
  }

  // Time runs to the right; on the axis of log-SNR a pane's time is warped so that equal places mean equal log-SNR.
  drawPane(pen, pane, {river, curve, first}, height) {
    const {scene, run} = pane,
      warp = this.warp(scene),
      seen = new Frame(...river, 0, scene.sde.T, -height, height);
    const frame = warp ? warped(seen, warp) : seen;
    const key = `${this.key} ${height} ${this.state.axis} ${frame.w}`;
    if (pane.pictured !== key)
      Object.assign(pane, {
        pictured: key,
        picture: warp ? this.warpedGrid(scene, frame, warp) : riverGrid(scene, frame),
      });
    pen.clip(frame, () => {
      heat(pen, frame, pane.picture, this.state.gamma, topOf(pane.picture));
      pane.own ??= run.done && scene.law.K <= 8 ? owners(scene.law, run.x, run.n, 1, 1e-6) : null;
      drawPaths(pen, frame, run, this.state.t * scene.sde.T, {
        unit: scene.unit,
        alpha: 0.6,
        colours: (p) => (pane.own ? pen.modes[pane.own[p] % pen.modes.length] : pen.made),
      });
    });
    const x = frame.X(this.state.t * scene.sde.T);
    pen.line(
      [
        [x, frame.y],
        [x, frame.y + frame.h],
      ],
      {colour: pen.ink, width: 1.3},
    );
    pen.text(this.headOf(pane), frame.x, frame.y - 9, {size: pen.small ? 11 : 13, colour: pen.ink});
    axes(pen, new Frame(...river, 0, warp ? 1 : scene.sde.T, -height, height), {
      yTicks: first ? ticks(-height, height, 4) : [],
      ...this.names(scene, warp, pen),
    });
    if (!this.faulty) this.drawCurves(pen, scene, new Frame(...curve, 0, scene.sde.T, 0, 1.08), first);
  }

  names(scene, warp, pen) {
    if (!warp) return {x: pen.small ? "" : "t"};
    const [low, high] = warp.range;
    return {
      x: pen.small ? "" : "log-SNR λ (falling)",
      xTicks: [0, 0.5, 1],
      xFormat: (u) => signed(high + (low - high) * u, 1),
    };
  }

  warp({sde}) {
    if (this.state.axis !== "log_snr") return null;
    const high = 5,
      low = -3;
    return {
      range: [low, high],
      place: (t) => Math.min(1, Math.max(0, (high - sde.logSnr(Math.max(t, 1e-9))) / (high - low))),
      time: (u) => sde.timeOf(high + (low - high) * u),
    };
  }

  warpedGrid(scene, frame, warp) {
    const sde = Object.create(scene.sde, {T: {value: 1}});
    const at = (fn) => (u) => fn(warp.time(u));
    Object.assign(sde, {alpha: at((t) => scene.sde.alpha(t)), variance: at((t) => scene.sde.variance(t))});
    return riverGrid(
      {law: scene.law, sde, unit: at(scene.unit)},
      new Frame(frame.x, frame.y, frame.w, frame.h, 0, 1, frame.y0, frame.y1),
    );
  }

  // α and σ, each as a part of its largest value, and the share of the signal α²/(α² + σ²).
  drawCurves(pen, {sde}, frame, first) {
    const times = Array.from({length: 81}, (_, i) => (sde.T * i) / 80),
      top = Math.max(1, sde.sigma(sde.T));
    const draw = (fn, style) =>
      pen.line(
        times.map((t) => [frame.X(t), frame.Y(fn(t))]),
        {width: 1.6, ...style},
      );
    draw((t) => sde.alpha(t), {colour: pen.real});
    draw((t) => sde.sigma(t) / top, {colour: pen.made});
    draw((t) => sde.alpha(t) ** 2 / (sde.alpha(t) ** 2 + sde.variance(t)), {colour: pen.ink, dash: [3, 3]});
    axes(pen, frame, {yTicks: first ? [0, 1] : [], xTicks: [0, sde.T]});
    if (!pen.small)
      pen.key(
        [
          ["α", pen.real],
          [top > 1 ? `σ/${signed(top, 0)}` : "σ", pen.made],
          ["signal fraction", pen.ink, true],
        ],
        frame.x,
        frame.y + frame.h + 34,
        11,
      );
  }

  numbers() {
    return this.panes.map(({run, wanted, ...pane}) => [
      `${this.headOf(pane)}: W₁ of the samples`,
      run.done ? figure(w1(run.x, wanted)) : "…",
    ]);
  }

  sentence() {
    if (this.faulty)
      return "The reverse SDE has two signs that can be wrong: only one of the four combinations leads to the data.";
    const same = new Set(this.panes.map(({sde}) => sde)).size === 1;
    if (same)
      return "One process, several dynamics: the trajectories differ, the distribution in blue is the same at every time.";
    if (this.state.axis === "log_snr")
      return "Plotted against log-SNR and scaled to unit variance, all processes coincide: same density, same trajectories.";
    return "The same data and the same random numbers under different processes: other trajectories, the same distribution at t = 0.";
  }

  describe() {
    return `${this.panes.length} panes: ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  rows() {
    return {
      head: ["particle", ...this.panes.map((pane) => this.headOf(pane))],
      rows: Array.from({length: this.state.p}, (_, i) => [i, ...this.panes.map(({run}) => run.x[i])]),
    };
  }
}

const figure = (value) => (value < 1000 ? value.toFixed(3) : value.toPrecision(2));

// A frame whose horizontal place is a function of time.
function warped(frame, warp) {
  const out = new Frame(frame.x, frame.y, frame.w, frame.h, frame.x0, frame.x1, frame.y0, frame.y1);
  out.X = (t) => frame.x + warp.place(t) * frame.w;
  return out;
}

function topOf({values}) {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.floor(0.992 * sorted.length)];
}
