// Your model: samples of a trained model on their way, computed by the loopback server that shows this page.
import {Frame, axes} from "./pen.js";
import {dots, histogram} from "./paint.js";
import {signed} from "./scene.js";
import {slicedW2} from "./metrics.js";

export class Own {
  constructor(app) {
    this.app = app;
  }

  static controls = ["method", "n", "p", "seed", "arrows"];

  get about() {
    return this.app.options.own;
  }

  set(state) {
    const {method, n, p, seed} = state,
      key = [method, n, p, seed].join();
    this.state = state;
    this.scene = {sde: {T: this.about.T}};
    if (key !== this.key) this.ask(key, state);
    if (state.arrows !== "none") this.askField();
  }

  // The server computes one thing at a time: what is no longer wanted is stopped, what is busy is asked again.
  async ask(key, {method, n, p, seed}) {
    this.key = key;
    this.waiting = true;
    await fetch("stop");
    const most = this.about.most,
      answer = await fetch(
        `sample?method=${method}&n=${Math.min(p, most.n)}&steps=${Math.min(n, most.steps)}&seed=${seed}`,
      );
    if (key !== this.key) return;
    const found = await answer.json();
    if (answer.status === 503 || found.stopped) {
      setTimeout(() => {
        if (key === this.key) this.ask(key, this.state);
      }, 200);
      return;
    }
    this.waiting = false;
    this.error = found.error ?? "";
    if (!found.error) this.take(found);
  }

  take({t, x, nfe, method}) {
    this.run = {stamps: t, frames: x.map((frame) => Float64Array.from(frame)), nfe, method};
    this.app.dirty = true;
    this.app.working = true;
  }

  async askField() {
    const t = this.state.t.toFixed(2);
    if (this.fieldAt === t || this.asking) return;
    this.asking = true;
    const answer = await fetch(`field?t=${t}`);
    this.asking = false;
    if (answer.ok) {
      this.field = await answer.json();
      this.fieldAt = t;
    }
    this.app.dirty = true;
  }

  work() {
    return false;
  }

  now() {
    const {stamps, frames} = this.run,
      t = this.state.t * this.scene.sde.T;
    const i = stamps.findIndex((s) => s <= t + 1e-12);
    return frames[i < 0 ? frames.length - 1 : i];
  }

  window(pen) {
    const {rows, d} = this.about,
      side = (j) => rows.filter((_, i) => i % d === j),
      reach = (v) => [v.reduce((a, b) => Math.min(a, b)), v.reduce((a, b) => Math.max(a, b))];
    const [x0, x1] = reach(side(0)),
      [y0, y1] = d === 2 ? reach(side(1)) : [0, 1],
      mx = 0.25 * (x1 - x0),
      my = 0.25 * (y1 - y0);
    return new Frame(56, 30, pen.w - 70, pen.h - 76, x0 - mx, x1 + mx, d === 2 ? y0 - my : 0, d === 2 ? y1 + my : 1);
  }

  draw(pen) {
    const frame = (this.frame = this.window(pen)),
      {d, columns} = this.about;
    if (d === 2) this.drawPlane(pen, frame);
    else this.drawLine(pen, frame);
    axes(pen, frame, {x: columns[0], y: d === 2 ? columns[1] : "", yTicks: d === 2 ? undefined : []});
    pen.key(
      [
        ["training data", pen.real],
        ["samples", pen.made],
      ],
      56,
      18,
    );
    if (this.waiting) pen.text("sampling …", pen.w - 20, 18, {align: "right"});
  }

  drawPlane(pen, frame) {
    const {rows} = this.about;
    pen.clip(frame, () => {
      dots(pen, frame, rows, rows.length / 2, {colour: pen.real, size: 1.2, alpha: 0.35});
      if (this.field && this.state.arrows !== "none") this.drawField(pen, frame);
      if (this.run) dots(pen, frame, this.now(), this.now().length / 2, {size: 1.6, alpha: 0.8});
    });
  }

  // From the points of a lattice to where the model would denoise them.
  drawField(pen, frame) {
    const {x, to} = this.field;
    for (let i = 0; i < x.length; i += 2) {
      const from = [frame.X(x[i]), frame.Y(x[i + 1])];
      pen.arrow(...from, 0.3 * (frame.X(to[i]) - from[0]), 0.3 * (frame.Y(to[i + 1]) - from[1]), pen.ink, 0.5);
    }
  }

  drawLine(pen, frame) {
    const bars = (x, colour) => {
      const shares = histogram(x, frame.x0, frame.x1, 50),
        top = shares.reduce((a, b) => Math.max(a, b), 1e-9);
      shares.forEach((v, i) =>
        pen.box(
          frame.x + (i / 50) * frame.w,
          frame.y + frame.h * (1 - (0.9 * v) / top),
          frame.w / 50 - 1,
          (frame.h * 0.9 * v) / top,
          colour,
          0.45,
        ),
      );
    };
    bars(this.about.rows, pen.real);
    if (this.run) bars(this.now(), pen.made);
  }

  numbers() {
    if (this.error) return [["Refused", this.error]];
    if (!this.run) return [["Samples", "being drawn"]];
    const {d, rows} = this.about,
      end = this.run.frames.at(-1),
      n = (Math.min(end.length, rows.length) / d) | 0;
    return [
      [
        "Sliced W₂ to the training data",
        slicedW2(end.subarray(0, n * d), Float64Array.from(rows.slice(0, n * d)), d, 24).toFixed(3),
      ],
      ["Sampler", this.run.method],
      ["Model evaluations", String(this.run.nfe)],
    ];
  }

  sentence() {
    return `Samples of your model of ${this.about.name} (orange) over its training data (blue).`;
  }

  describe() {
    return `${this.sentence()} At t = ${signed(this.state.t * this.scene.sde.T)}; ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  rows() {
    const {d, columns} = this.about,
      x = this.run?.frames.at(-1) ?? [];
    return {
      head: ["sample", ...columns],
      rows: Array.from({length: x.length / d}, (_, i) => [i, ...x.slice(i * d, (i + 1) * d)]),
    };
  }
}
