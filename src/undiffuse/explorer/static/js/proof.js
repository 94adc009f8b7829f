// V10 Proof corner: an increment of noise that has happened is not independent of where the path has come to; the
// score says how it depends, and what is left without it is the noise of the reverse process.
import {PURPOSE, normal} from "./noise.js";
import {Frame, axes} from "./pen.js";
import {keyOf, sceneOf, signed} from "./scene.js";
import {stepOf} from "./points.js";

const BINS = 16;

export class Proof {
  constructor(app) {
    this.app = app;
  }

  static controls = ["minus", "law", "sde", "dt", "p", "seed"];

  set(state) {
    const key = keyOf(state, "minus");
    this.state = state;
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf({...state, score: "exact"})});
    this.step();
  }

  // Draws of the exact law at t − dt, one step of the forward process, and the score where it has come to.
  step() {
    const {law, sde} = this.scene,
      {p, seed} = this.state,
      {length, s} = stepOf(this.state, sde.T),
      t = s + length;
    const x0 = law.sample(p, seed).x,
      eps = normal(seed, PURPOSE.NOISE, 0, 0, p, 1),
      dW = normal(seed, PURPOSE.STEP, 0, 0, p, 1).map((z) => Math.sqrt(length) * z);
    const from = x0.map((x, i) => sde.alpha(s) * x + sde.sigma(s) * eps[i]),
      g = Math.sqrt(sde.g2(s)),
      x = from.map((value, i) => value + sde.f(s) * value * length + g * dW[i]);
    const score = law.at(sde.alpha(t), sde.variance(t)).score(x, p);
    Object.assign(this, {t, s, length, g, x, dW, score, run: {frames: [x], n: p, done: true, stamps: [t]}});
  }

  // What is drawn: the increments, or what is left of them without their mean −g s dt.
  get shown() {
    return this.state.minus ? this.dW.map((v, i) => v + this.g * this.score[i] * this.length) : this.dW;
  }

  draw(pen) {
    const {x, shown} = this,
      sorted = Float64Array.from(x).sort(),
      reach = 1.1 * Math.max(-sorted[0], sorted.at(-1)),
      high = 4 * Math.sqrt(this.length),
      top = pen.small ? 62 : 34,
      frame = (this.frame = new Frame(66, top, pen.w - 80, pen.h - top - 50, -reach, reach, -high, high)),
      size = x.length > 6000 ? 1.2 : 1.8;
    pen.clip(frame, () => {
      for (let i = 0; i < x.length; i++)
        pen.box(frame.X(x[i]) - size / 2, frame.Y(shown[i]) - size / 2, size, size, pen.made, 0.55);
      pen.line(
        [
          [frame.x, frame.Y(0)],
          [frame.x + frame.w, frame.Y(0)],
        ],
        {colour: pen.muted, dash: [3, 4]},
      );
      pen.line(
        Array.from({length: 181}, (_, i) => -reach + (i / 90) * reach).map((v) => [frame.X(v), frame.Y(this.mean(v))]),
        {colour: pen.real, width: 2.6},
      );
      this.bins(sorted).forEach((bin) => this.drawBin(pen, frame, bin));
    });
    axes(pen, frame, {x: "x at t", yFormat: (v) => signed(v, high < 0.5 ? 2 : 1)});
    pen.text(this.state.minus ? "dW + g s dt" : "dW", 16, frame.y + frame.h / 2, {align: "center", turn: -Math.PI / 2});
    pen.key(
      [
        ["one step of one particle", pen.made],
        ["mean predicted by the score", pen.real],
        ["mean of nearby particles, ± 2 standard errors", pen.ink],
      ],
      pen.small ? 12 : 66,
      18,
      pen.small ? 10.5 : 12,
    );
  }

  // E[dW | x_t = x] = −g s(x) dt to first order in dt; 0 once it is taken away.
  mean(x) {
    if (this.state.minus) return 0;
    const {law, sde} = this.scene;
    return -this.g * this.length * law.at(sde.alpha(this.t), sde.variance(this.t)).score(Float64Array.of(x), 1)[0];
  }

  // As many particles in each of a few bins along x: where they are, the mean of what is shown and its error.
  bins(sorted) {
    const {x, shown} = this,
      edges = Array.from({length: BINS - 1}, (_, k) => sorted[Math.floor(((k + 1) * x.length) / BINS)]),
      sums = Array.from({length: BINS}, () => [0, 0, 0, 0]);
    x.forEach((value, i) => {
      const k = edges.filter((edge) => value >= edge).length;
      [1, value, shown[i], shown[i] ** 2].forEach((v, j) => {
        sums[k][j] += v;
      });
    });
    return sums
      .filter(([n]) => n > 2)
      .map(([n, at, sum, square]) => ({at: at / n, mean: sum / n, error: Math.sqrt((square / n - (sum / n) ** 2) / n)}));
  }

  drawBin(pen, frame, {at, mean, error}) {
    const [px, py] = [frame.X(at), frame.Y(mean)],
      reach = frame.Y(mean - 2 * error) - py;
    pen.line(
      [
        [px, py - reach],
        [px, py + reach],
      ],
      {colour: pen.ink, width: 1.6},
    );
    pen.mark(px, py, 3.2, 0, pen.ink);
  }

  // The slope of what is shown against the score, and its error.
  slope() {
    const {score, shown} = this,
      n = score.length,
      middle = (v) => v.reduce((a, b) => a + b, 0) / n,
      [ms, mw] = [middle(score), middle(shown)];
    const square = score.reduce((sum, s) => sum + (s - ms) ** 2, 0),
      value = score.reduce((sum, s, i) => sum + (s - ms) * (shown[i] - mw), 0) / square,
      rest = shown.reduce((sum, w, i) => sum + (w - mw - value * (score[i] - ms)) ** 2, 0);
    return {value, error: Math.sqrt(rest / Math.max(1, n - 2) / square)};
  }

  numbers() {
    const {value, error} = this.slope(),
      name = this.state.minus ? "dW + g s dt" : "dW";
    return [
      [`Slope of ${name} against the score`, `${signed(value, 4)} ± ${error.toFixed(4)}`],
      [this.state.minus ? "Expected" : "Expected, −g dt", this.state.minus ? "0" : signed(-this.g * this.length, 4)],
      ["Step dt", this.length.toPrecision(3)],
    ];
  }

  sentence() {
    return this.state.minus
      ? "After its mean −g s dt is removed, the increment is uncorrelated with x: this is the noise of the reverse process."
      : "Past noise is correlated with the state it led to: the score is exactly that correlation.";
  }

  describe() {
    return `${this.state.p} particles, one step to t = ${signed(this.t)}; ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  work() {
    return false;
  }

  rows() {
    return {
      head: ["particle", "x", "dW", "score", "dW + g s dt"],
      rows: Array.from(this.x, (x, i) => [i, x, this.dW[i], this.score[i], this.dW[i] + this.g * this.score[i] * this.length]),
    };
  }
}
