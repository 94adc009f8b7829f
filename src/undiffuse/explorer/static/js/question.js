// V7 Question: a line a·x = y is observed with noise; the exact posterior beside its usual approximations.
import {Frame, axes, ticks} from "./pen.js";
import {contours, dots, heat} from "./paint.js";
import {planeGrid, windowOf} from "./cloud.js";
import {SAMPLED, keyOf, percent, runOf, sceneOf, seenAt, signed, workOn} from "./scene.js";
import {ANSWERS, observed, replacement} from "./guide.js";
import {meanAndStd, owners, weightError} from "./metrics.js";
import {directionOf} from "./python.js";

export class Question {
  constructor(app) {
    this.app = app;
  }

  static controls = ["y", "angle", "std", "answers", "zeta", "law", ...SAMPLED, "gamma"];

  set(state) {
    const key = keyOf(state, "t", "gamma");
    this.state = state;
    if (key === this.key) return;
    Object.assign(this, {key, scene: sceneOf(state), pictured: null});
    const {law, sde} = this.scene,
      seen = {a: directionOf(state), y: state.y, std: state.std};
    this.truth = law.posterior(Float64Array.from(seen.a), [seen.y], seen.std);
    this.panes = (state.answers.length ? state.answers : ["exact"]).map((name) => ({
      name,
      run: runOf(state, observed(law, sde, seen, name, state.zeta), {
        after: name === "replacement" ? replacement(seen) : null,
      }),
    }));
    this.run = this.panes[0].run;
  }

  work(deadline) {
    return workOn(
      this.panes.map(({run}) => run),
      deadline,
    );
  }

  get t() {
    return this.state.t * this.scene.sde.T;
  }

  draw(pen) {
    const n = this.panes.length,
      across = pen.small ? Math.min(2, n) : n > 3 ? Math.ceil(n / 2) : n,
      down = Math.ceil(n / across),
      gap = 18,
      left = 34;
    const w = (pen.w - left - 6 - gap * (across - 1)) / across,
      h = pen.h / down;
    this.frames = this.panes.map((pane, i) => {
      const bars = Math.min(34, h * 0.15),
        x = left + (i % across) * (w + gap),
        y = Math.floor(i / across) * h + 22;
      const frame = windowOf(this.scene.law, w, h - 22 - bars - 32, x, y);
      this.drawPane(pen, pane, frame, i, i % across === 0);
      this.drawBars(pen, pane, new Frame(x, frame.y + frame.h + 24, w, bars, 0, 1, 0, 1));
      return frame;
    });
  }

  drawPane(pen, pane, frame, i, first) {
    const {law, sde} = this.scene,
      t = Math.max(this.t, 1e-4 * sde.T),
      key = `${frame.w} ${frame.h} ${t}`;
    if (this.pictured !== key) {
      const alpha = sde.alpha(t),
        variance = sde.variance(t);
      Object.assign(this, {
        pictured: key,
        prior: planeGrid(law.at(alpha, variance), frame, 1, 48),
        exact: planeGrid(this.truth.at(alpha, variance), frame, 1, 72),
      });
    }
    pen.clip(frame, () => {
      heat(pen, frame, this.prior, this.state.gamma * 0.9);
      contours(pen, frame, this.exact, [0.5, 0.95], {width: 1.8});
      dots(pen, frame, seenAt(pane.run, this.t), pane.run.n, {size: pen.small ? 1 : 1.5, alpha: 0.8});
      this.drawLine(pen, frame);
    });
    axes(pen, frame, {xTicks: ticks(frame.x0, frame.x1, 5), yTicks: first ? ticks(frame.y0, frame.y1, 4) : []});
    pen.text(ANSWERS[pane.name], frame.x, frame.y - 8, {size: pen.small ? 11 : 13, colour: pen.ink});
    const warning = this.warning(pane);
    if (warning) pen.text(warning, frame.x + frame.w, frame.y - 8, {size: 11, colour: pen.made, align: "right"});
  }

  drawLine(pen, frame) {
    const [c, s] = directionOf(this.state),
      {y, std} = this.state,
      far = 20,
      line = (v) =>
        [
          [c * v - s * far, s * v + c * far],
          [c * v + s * far, s * v - c * far],
        ].map(([a, b]) => [frame.X(a), frame.Y(b)]);
    pen.line(line(y), {colour: pen.ink, width: 1.4});
    for (const side of [-2, 2]) pen.line(line(y + side * std), {colour: pen.ink, alpha: 0.5, dash: [3, 4]});
  }

  shares(pane) {
    const own = owners(this.truth, pane.run.x, pane.run.n, 1, 1e-6),
      share = new Float64Array(this.truth.K);
    own.forEach((k) => {
      share[k] += 1 / own.length;
    });
    return share;
  }

  // Weights of the modes: particles in orange, the exact ones as blue lines.
  drawBars(pen, pane, frame) {
    const {K, weights} = this.truth;
    if (K > 12 || !pane.run.done) return;
    this.shares(pane).forEach((share, k) => {
      const x = frame.x + ((k + 0.12) / K) * frame.w,
        w = (0.76 * frame.w) / K;
      pen.box(x, frame.y + frame.h * (1 - share), w, frame.h * share, pen.made, 0.55);
      pen.line(
        [
          [x, frame.y + frame.h * (1 - weights[k])],
          [x + w, frame.y + frame.h * (1 - weights[k])],
        ],
        {colour: pen.real, width: 2.4},
      );
    });
    pen.line(
      [
        [frame.x, frame.y + frame.h],
        [frame.x + frame.w, frame.y + frame.h],
      ],
      {colour: pen.rule},
    );
  }

  // A method whose particles spread far less than the posterior, or miss a mode, is said to.
  warning({run}) {
    if (!run.done) return "";
    const spread = (x, d) => Math.hypot(meanAndStd(x, d, 0)[1], meanAndStd(x, d, 1)[1]),
      {values} = this.truth.moments;
    const ratio = spread(run.x, 2) / Math.sqrt(values[0] + values[1]);
    if (!Number.isFinite(ratio) || ratio > 3) return "diverges";
    return ratio < 0.6 ? "too narrow" : "";
  }

  numbers() {
    return this.panes.map((pane) => [
      `${ANSWERS[pane.name]}: error of the modes' weights`,
      pane.run.done ? percent(weightError(this.truth, owners(this.truth, pane.run.x, pane.run.n, 1, 1e-6))) : "…",
    ]);
  }

  sentence() {
    return "Only a noisy projection on the line is observed: the blue contours are the exact posterior, the dots the samples of each method.";
  }

  describe() {
    return `Observed a·x = ${signed(this.state.y)} at ${this.state.angle} degrees; ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  rows() {
    return {
      head: ["particle", ...this.panes.flatMap(({name}) => [`${name} x1`, `${name} x2`])],
      rows: Array.from({length: this.run.n}, (_, i) => [
        i,
        ...this.panes.flatMap(({run}) => [run.x[2 * i], run.x[2 * i + 1]]),
      ]),
    };
  }

  // The observation moves along its direction; a second handle turns the line.
  handles() {
    const frame = this.frames[0],
      [c, s] = directionOf(this.state),
      {y, angle} = this.state,
      arm = 1.6;
    const fit = (v, high) => Math.min(high, Math.max(-high, v)),
      spot = (a, b) => [frame.X(a), frame.Y(b)];
    const turn = (degrees) => this.app.set({angle: Math.round(((degrees + 540) % 360) - 180)}),
      set = (v) => this.app.set({y: Number(fit(v, 6).toFixed(3))});
    return [
      {
        name: "Observation y",
        at: spot(c * y, s * y),
        value: [y],
        step: [0.1, 0.1],
        set: (u, v) => set(u + v),
        move: (px, py) => {
          const [a, b] = frame.at(px, py);
          set(c * a + s * b);
        },
      },
      {
        name: "Angle of the line",
        at: spot(c * y - s * arm, s * y + c * arm),
        value: [angle],
        step: [5, 5],
        set: (u, v) => turn(u + v),
        move: (px, py) => {
          const [a, b] = frame.at(px, py);
          turn((Math.atan2(b - s * y, a - c * y) * 180) / Math.PI - 90);
        },
      },
    ];
  }
}
