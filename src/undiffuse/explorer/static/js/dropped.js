// A point dropped on the river and sent on its way: ten draws of the SDE to the noise and to the data, and the ODE
// through it, whose ends can be taken hold of.
import {Run, endOf} from "./sampling.js";
import {ForwardRun} from "./scene.js";
import {flowLine} from "./flow.js";

const FUTURES = 10,
  STEPS = 160,
  LAST = 0.9999;

export class Dropped {
  // share: t/T of the point; x: its place in the units of the picture.
  constructor(scene, seed, share, x) {
    const {sde, unit} = scene,
      t = Math.min(0.999, Math.max(0.002, share)) * sde.T;
    Object.assign(this, {scene, seed, t, x, start: x / unit(t)});
    Object.assign(this, {back: this.line(t, this.start, endOf(scene.model)), on: this.line(t, this.start, LAST * sde.T)});
    Object.assign(this, {past: this.toData(), future: this.toNoise()});
  }

  line(t, x, end) {
    return flowLine(this.scene.model, x, t, end);
  }

  toData() {
    const {
        scene: {model},
        t,
        start,
        seed,
      } = this,
      end = Math.min(endOf(model), t / 2),
      from = new Float64Array(FUTURES).fill(start);
    const run = new Run(model, {n: FUTURES, method: "euler_maruyama", steps: STEPS, grid: "time", seed, start: t, end, from});
    return {frames: run.finish().frames, times: run.times};
  }

  toNoise() {
    const {
        scene: {sde},
        t,
        start,
        seed,
      } = this,
      later = {T: sde.T - t, f: (s) => sde.f(s + t), g2: (s) => sde.g2(s + t)};
    const run = new ForwardRun(later, new Float64Array(FUTURES).fill(start), FUTURES, 1, STEPS, seed);
    while (!run.done) run.advance();
    return {frames: run.frames, times: run.stamps.map((s) => s + t)};
  }

  draw(pen, frame) {
    const {unit} = this.scene,
      at = (s, x) => [frame.X(s), frame.Y(unit(s) * x)];
    for (const {times, frames} of [this.past, this.future])
      for (let p = 0; p < FUTURES; p++) {
        const points = times.map((s, i) => at(s, frames[i][p]));
        pen.line(points, {colour: pen.ink, width: 1.1, alpha: 0.8, dash: [3, 4]});
      }
    for (const line of [this.back, this.on])
      pen.line(
        line.map(([s, x]) => at(s, x)),
        {colour: pen.made, width: 3},
      );
    pen.mark(...at(this.t, this.start), 6, 0, pen.ink);
  }

  // The ends of the ODE's path; moved, they say where the path through the new end is at the point's time.
  ends(frame, drop) {
    const {unit} = this.scene;
    return [
      ["Data end of the trajectory", this.back.at(-1)],
      ["Noise end of the trajectory", this.on.at(-1)],
    ].map(([name, [s, x]]) => {
      const value = unit(s) * x,
        set = (v) => drop(this.t, unit(this.t) * this.line(s, v / unit(s), this.t).at(-1)[1]);
      return {
        name,
        at: [frame.X(s), frame.Y(value)],
        value: [value],
        step: [0.1, 0.1],
        set: (u, v) => set(u + v),
        move: (px, py) => set(frame.at(px, py)[1]),
      };
    });
  }
}
