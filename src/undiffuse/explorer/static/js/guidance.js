// V6 Guidance: the tilted law that guidance is meant to sample, and what it samples.
import {axes} from "./pen.js";
import {contours, densityGrid, dots, heat} from "./paint.js";
import {planeGrid, windowOf} from "./cloud.js";
import {SAMPLED, keyOf, runOf, sceneOf, seenAt, signed, workOn} from "./scene.js";
import {guided, tilted} from "./guide.js";
import {meanAndStd} from "./metrics.js";

export class Guidance {
  constructor(app) {
    this.app = app;
  }

  static controls = ["law", "label", "w", "low", "high", "other", ...SAMPLED, "gamma"];

  set(state) {
    const key = keyOf(state, "t", "gamma");
    this.state = state;
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf(state), target: null, gridKey: null});
    const {law, sde} = this.scene,
      classes = law.classes || 1,
      label = law.labels ? Math.min(state.label, classes - 1) : null;
    this.tilt = {
      label,
      w: state.w,
      other: state.other === "all" || Number(state.other) >= classes ? null : Number(state.other),
    };
    this.run = runOf(state, guided(law, sde, {...this.tilt, low: state.low * sde.T, high: state.high * sde.T}));
  }

  work(deadline) {
    return workOn([this.run], deadline);
  }

  get t() {
    return this.state.t * this.scene.sde.T;
  }

  draw(pen) {
    const {
        scene: {law, sde},
        tilt,
      } = this,
      t = Math.max(this.t, 1e-4 * sde.T),
      lens = law.at(sde.alpha(t), sde.variance(t));
    const frame = (this.frame = windowOf(law, pen.w - 52, pen.h - (pen.small ? 92 : 80), 44, pen.small ? 40 : 30)),
      key = `${t} ${frame.w}`;
    if (this.gridKey !== key) {
      Object.assign(this, {
        gridKey: key,
        all: planeGrid(lens, frame, 1),
        wanted: planeGrid(lens, frame, 1, 72, tilt.label),
      });
      this.target = this.targetOn(frame);
    }
    pen.clip(frame, () => {
      heat(pen, frame, this.all, this.state.gamma * 0.8);
      contours(pen, frame, this.wanted, [0.5, 0.95], {colour: pen.ink, dash: [5, 4], width: 1.2});
      if (this.state.t < 0.03) contours(pen, frame, this.target, [0.5, 0.95], {colour: pen.real, width: 2.4});
      dots(pen, frame, seenAt(this.run, this.t), this.run.n, {size: 1.8});
    });
    axes(pen, frame, {x: "x₁", y: "x₂"});
    pen.key(
      [
        ["all data", pen.heat[3]],
        ["the class", pen.ink, true],
        ["tilted target, 50 and 95 %", pen.real],
        ["guided particles", pen.made],
      ],
      44,
      18,
    );
  }

  targetOn(frame) {
    const ny = 96,
      nx = Math.round((ny * frame.w) / frame.h);
    return densityGrid(frame, nx, ny, (x, at) => tilted(this.scene.law, x, at, this.tilt));
  }

  // Mean and deviation of the target per coordinate, from its grid.
  targetMoments() {
    const {nx, ny, values} = this.target,
      {frame} = this,
      top = values.reduce((a, b) => Math.max(a, b), -Infinity),
      sums = [0, 0, 0, 0, 0];
    values.forEach((value, i) => {
      const p = Math.exp(value - top),
        x = frame.x0 + (((i % nx) + 0.5) / nx) * (frame.x1 - frame.x0),
        y = frame.y0 + ((Math.floor(i / nx) + 0.5) / ny) * (frame.y1 - frame.y0);
      [p, p * x, p * y, p * x * x, p * y * y].forEach((v, k) => {
        sums[k] += v;
      });
    });
    return [1, 2].map((k) => [sums[k] / sums[0], Math.sqrt(sums[k + 2] / sums[0] - (sums[k] / sums[0]) ** 2)]);
  }

  numbers() {
    if (!this.target || !this.run.done) return [["Particles", "being sampled"]];
    const wanted = this.targetMoments();
    return [0, 1].flatMap((j) => {
      const [mean, std] = meanAndStd(this.run.x, 2, j),
        name = `x${"₁₂"[j]}`;
      return [
        [`Mean of ${name}, particles and target`, `${signed(mean)} and ${signed(wanted[j][0])}`],
        [`Standard deviation of ${name}`, `${std.toFixed(2)} and ${wanted[j][1].toFixed(2)}`],
      ];
    });
  }

  sentence() {
    const {w} = this.state;
    if (w === 1) return "At w = 1 guidance is conditioning, and the particles follow the class distribution exactly.";
    if (w === 0) return "At w = 0 the class is ignored: the particles follow the distribution of all data.";
    return "Guided particles (orange) and their target distribution (blue): close, but not equal.";
  }

  describe() {
    return `Guidance with w = ${this.state.w} towards class ${this.state.label + 1}: ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  rows() {
    const {x} = this.run;
    return {
      head: ["particle", "x1", "x2"],
      rows: Array.from({length: this.run.n}, (_, i) => [i, x[2 * i], x[2 * i + 1]]),
    };
  }
}
