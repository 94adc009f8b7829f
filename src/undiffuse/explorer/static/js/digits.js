// V8 Digits: 8 by 8 digits from a mixture whose score is exact; drawn from noise, or completed from what is painted.
import {keyOf, percent, runOf, seenAt, signed, workOn} from "./scene.js";
import {digitsLaw} from "./laws.js";
import {exactModel} from "./sampling.js";
import {parseProcess} from "./processes.js";
import {guided} from "./guide.js";
import {kernelLaw, middleDistance, nearest, spacingOf, training} from "./training.js";
import {seenPixels} from "./python.js";

const SIDE = 8,
  COMPLETIONS = 8,
  LEAST = 1e-13;

export class Digits {
  constructor(app) {
    this.app = app;
  }

  static controls = ["mode", "label", "w", "h", "near", "p", "sde", "method", "eta", "n", "grid", "std", "seed"];

  set(state) {
    const key = keyOf(state, "t", "near");
    this.state = state;
    if (key === this.key) return;
    this.key = key;
    this.law = digitsLaw();
    this.scene = {sde: parseProcess(state.sde)};
    this.run = this.found = null;
    if (state.mode === "complete") this.ask(state);
    else this.run = runOf({...state, p: Math.min(36, state.p)}, this.model(state));
  }

  // The law that digits are drawn from, and its model: of one class, or guided towards it.
  model({label, w, h}) {
    const {sde} = this.scene;
    this.drawn = h ? kernelLaw(h) : this.law;
    return w === 1 ? exactModel(this.drawn.given(label), sde) : guided(this.drawn, sde, {label, w});
  }

  // The nearest training digits of the drawn ones.
  get neighbours() {
    this.found ??= Array.from({length: this.run.n}, (_, i) => nearest(this.run.x, 64 * i));
    return this.found;
  }

  get t() {
    return this.state.t * this.scene.sde.T;
  }

  // The class posterior at once; the posterior itself needs eigenvectors and waits for `work`.
  ask({seen, std}) {
    const {at, y} = seenPixels(seen),
      A = new Float64Array(at.length * 64);
    at.forEach((pixel, i) => {
      A[i * 64 + pixel] = 1;
    });
    this.classes = at.length ? this.law.classEvidence(A, y, std) : new Float64Array(10).fill(0.1);
    this.conditioning = at.length ? this.law.conditioning(A, y, std, LEAST) : null;
  }

  work(deadline) {
    while (!this.run) {
      const {value, done} = this.conditioning?.next() ?? {value: this.law, done: true};
      if (done) this.run = runOf(this.state, exactModel(value, this.scene.sde), {n: COMPLETIONS});
      if (performance.now() > deadline) return true;
    }
    return workOn([this.run], deadline);
  }

  // The grey levels of a digit in [-1, 1] as squares.
  image(pen, x, at, px, py, size, border = false) {
    const cell = size / SIDE;
    pen.box(px, py, size, size, pen.dark ? "#000000" : "#ffffff");
    for (let i = 0; i < 64; i++) {
      const level = Math.min(1, Math.max(0, (x[at + i] + 1) / 2)),
        grey = Math.round(255 * (pen.dark ? level : 1 - level));
      pen.box(
        px + (i % SIDE) * cell,
        py + Math.floor(i / SIDE) * cell,
        cell + 0.4,
        cell + 0.4,
        `rgb(${grey},${grey},${grey})`,
      );
    }
    if (border) pen.outline(px, py, size, pen.rule);
  }

  draw(pen) {
    if (this.state.mode === "complete") this.drawPainting(pen);
    else this.drawSamples(pen);
  }

  drawSamples(pen) {
    const n = this.run.n,
      strip = pen.small ? 100 : 126,
      pair = this.state.near ? 2 : 1,
      across = Math.max(1, Math.round(Math.sqrt((n * (pen.w - 24)) / (pen.h - strip) / pair))),
      down = Math.ceil(n / across);
    const size = Math.min((pen.w - 24) / across / pair - 8, (pen.h - strip) / down - 8),
      x = seenAt(this.run, this.t),
      wide = pair * size + (pair > 1 ? 14 : 8),
      left = (pen.w - across * wide) / 2;
    for (let i = 0; i < n; i++) {
      const px = left + (i % across) * wide,
        py = 4 + Math.floor(i / across) * (size + 8);
      this.image(pen, x, 64 * i, px, py, size);
      if (pair > 1) this.drawNeighbour(pen, i, px + size + 2, py, size);
    }
    this.drawStrips(pen, pen.h - strip + 20, strip - 24);
  }

  // The training digit that is nearest to a drawn one, framed in blue: what is real.
  drawNeighbour(pen, i, px, py, size) {
    if (!this.run.done) return;
    const inset = size * 0.16;
    this.image(pen, training().x, 64 * this.neighbours[i].index, px + inset / 2, py + inset, size - 2 * inset);
    pen.outline(px + inset / 2, py + inset, size - 2 * inset, pen.real);
  }

  // The first digit's way: x_t above, E[x_0 | x_t] below.
  drawStrips(pen, y, h) {
    const {run} = this,
      shown = pen.small ? 7 : 12,
      size = Math.min(h / 2 - 8, (pen.w - 90) / shown - 6),
      left = 78;
    pen.text("x at t", 8, y + size / 2 + 4, {size: 11});
    pen.text("E[x₀ | x]", 8, y + 1.5 * size + 10, {size: 11});
    for (let k = 0; k < shown; k++) {
      const i = Math.round((k / (shown - 1)) * run.steps);
      if (i >= run.frames.length) break;
      const x = run.frames[i].subarray(0, 64),
        px = left + k * (size + 6);
      this.image(pen, x, 0, px, y, size);
      this.image(pen, run.model.denoise(x, 1, Math.max(run.times[i], 1e-6)), 0, px, y + size + 6, size);
      pen.text(signed(run.times[i]), px + size / 2, y - 4, {size: 10, align: "center"});
    }
  }

  drawPainting(pen) {
    const big = pen.small ? Math.min(pen.w * 0.58, pen.h * 0.45) : Math.min(pen.w * 0.42, pen.h - 40),
      left = 12,
      top = 24;
    this.canvasAt = {x: left, y: top, size: big};
    pen.text(pen.small ? "Paint here" : "Paint here; grey pixels are unknown", left, 14, {size: 12, colour: pen.ink});
    this.drawSeen(pen, left, top, big);
    const bars = pen.small
      ? {x: left + big + 30, y: top, w: pen.w - big - 60, h: big}
      : {x: left + big + 60, y: top, w: pen.w - big - 90, h: Math.min(220, pen.h * 0.36)};
    this.drawClasses(pen, bars);
    const y = pen.small ? top + big + 34 : bars.y + bars.h + 44,
      x = pen.small ? left : bars.x,
      w = pen.small ? pen.w - 24 : bars.w;
    pen.text("Eight exact completions", x, y - 10, {size: 12, colour: pen.ink});
    if (this.run) this.drawCompletions(pen, x, y, w, pen.h - y - 4);
  }

  drawSeen(pen, left, top, big) {
    const cell = big / SIDE,
      {seen} = this.state;
    for (let i = 0; i < 64; i++) {
      const c = seen[i] ?? "-",
        x = left + (i % SIDE) * cell,
        y = top + Math.floor(i / SIDE) * cell,
        level = parseInt(c, 17) / 16;
      const grey = Math.round(255 * (pen.dark ? level : 1 - level));
      pen.box(x, y, cell - 1, cell - 1, c === "-" ? pen.rule : `rgb(${grey},${grey},${grey})`, c === "-" ? 0.55 : 1);
    }
    pen.outline(left, top, big, pen.rule);
  }

  drawClasses(pen, {x, y, w, h}) {
    const row = h / 10;
    pen.text(pen.small ? "p(class)" : "p(class | painted pixels)", x, 14, {size: 12, colour: pen.ink});
    this.classes.forEach((p, k) => {
      const at = y + (k + 0.5) * row,
        long = (w - 70) * p;
      pen.text(String(k), x, at, {size: 12, colour: pen.ink, base: "middle"});
      pen.box(x + 16, at - row * 0.32, Math.max(1, long), row * 0.64, pen.made, 0.75);
      if (p >= 0.005) pen.text(percent(p), x + 22 + long, at, {size: 11, base: "middle"});
    });
  }

  drawCompletions(pen, x, y, w, h) {
    const x0 = seenAt(this.run, this.t),
      across = Math.min(w / 8, h) > Math.min(w / 4, h / 2) ? 8 : 4,
      size = Math.min(w / across, h / (COMPLETIONS / across)) - 8;
    for (let i = 0; i < COMPLETIONS; i++) {
      this.image(pen, x0, 64 * i, x + (i % across) * (size + 8), y + Math.floor(i / across) * (size + 8), size, true);
    }
  }

  // Pressing on a pixel makes it known and black, white and unknown in turn; dragging goes on with what was begun.
  paint(px, py, event) {
    if (this.state.mode !== "complete") return;
    const {x, y, size} = this.canvasAt,
      column = Math.floor(((px - x) / size) * SIDE),
      row = Math.floor(((py - y) / size) * SIDE);
    if (column < 0 || row < 0 || column >= SIDE || row >= SIDE) return;
    const seen = this.state.seen || "-".repeat(64),
      at = row * SIDE + column;
    if (event.type === "pointerdown") this.ink = {"-": "g", "g": "0", "0": "-"}[seen[at]] ?? "g";
    this.dot(at, this.ink);
  }

  dot(at, ink) {
    const seen = [...(this.state.seen || "-".repeat(64))];
    if (seen[at] === ink) return;
    seen[at] = ink;
    this.app.set({seen: seen.every((c) => c === "-") ? "" : seen.join("")});
  }

  // One handle on the pixel that the keyboard paints.
  handles() {
    if (this.state.mode !== "complete") return [];
    const {x, y, size} = this.canvasAt,
      at = (this.cursor ??= 27),
      cell = size / SIDE,
      column = at % SIDE,
      row = Math.floor(at / SIDE);
    const set = (u, v) => {
      this.cursor = Math.min(7, Math.max(0, Math.round(-v))) * SIDE + Math.min(7, Math.max(0, Math.round(u)));
      this.app.dirty = true;
    };
    return [
      {
        name: "Pixel; Enter paints it",
        show: false,
        value: [column, -row],
        step: [1, 1],
        set,
        at: [x + (column + 0.5) * cell, y + (row + 0.5) * cell],
        move: () => {},
        press: () => this.dot(at, {"-": "g", "g": "0", "0": "-"}[(this.state.seen || "-".repeat(64))[at]] ?? "g"),
      },
    ];
  }

  logProbs() {
    const lens = this.drawn.at();
    return Array.from({length: this.run.n}, (_, i) => lens.logProb(this.run.x, 64 * i));
  }

  numbers() {
    if (this.state.mode === "complete") {
      const best = this.classes.reduce((b, p, k) => (p > this.classes[b] ? k : b), 0);
      return [
        ["Pixels known", String(seenPixels(this.state.seen).at.length)],
        ["Most probable class", `${best}, ${percent(this.classes[best])}`],
      ];
    }
    if (!this.run.done) return [["Digits", "being sampled"]];
    const values = this.logProbs(),
      right = values.filter((_, i) => this.classOf(i) === this.state.label).length / values.length;
    return [
      ["log p of a digit, mean", signed(values.reduce((a, b) => a + b, 0) / values.length, 1)],
      ["Classified as the requested class", percent(right)],
      ["Distance to the nearest training digit", middleDistance(this.neighbours).toFixed(2)],
      ["between training digits", spacingOf(this.state.label).toFixed(2)],
      ["Evaluations per digit", String(this.run.calls)],
    ];
  }

  classOf(i) {
    const r = this.law.at().responsibilities(this.run.x, 64 * i);
    return r.reduce((best, p, k) => (p > r[best] ? k : best), 0);
  }

  sentence() {
    if (this.state.mode === "complete")
      return "Paint part of a digit: the class probabilities and the completions follow exactly from the mixture.";
    if (this.state.h)
      return "Every training digit is a component of the mixture: the narrower the components, the more each sample copies its nearest digit (blue).";
    if (this.state.w > 1)
      return "Guidance pushes away from the other nine Gaussians; because the classes hardly overlap, it changes little.";
    return "Ten Gaussians of 64 pixels were fitted to real digits; the score of their diffusion is exact, and so are the probabilities.";
  }

  describe() {
    return `${this.state.mode === "complete" ? "A digit is painted" : `Samples of the digit ${this.state.label}`}: ${this.numbers()
      .map(([name, value]) => `${name} ${value}`)
      .join("; ")}.`;
  }

  rows() {
    const x = this.run?.x ?? new Float64Array(0);
    return {
      head: ["digit", ...Array.from({length: 64}, (_, i) => `pixel ${i}`)],
      rows: Array.from({length: x.length / 64}, (_, i) => [i, ...x.subarray(64 * i, 64 * i + 64)]),
    };
  }
}
