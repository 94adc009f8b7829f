// The solved Fokker-Planck equation over the exact law: contours on the river, a curve beside it, and how far apart.
import {densityOf, exactMasses, solved} from "./fokker.js";
import {isolines} from "./paint.js";
import {columnTimes} from "./riverbed.js";

const LEVELS = [0.03, 0.12, 0.35, 0.75].map(Math.log);

export class Solution {
  // `before` is used again where it solves the same.
  constructor(scene, cells, before = null) {
    const {law, sde} = scene,
      times = columnTimes(sde.T);
    if (before?.scene === scene && before.cells === cells) Object.assign(this, before);
    else Object.assign(this, {scene, cells, solved: solved(law, sde, times, cells), grid: null});
  }

  // At the levels that the exact law is drawn at too; `top` is the log density at full colour.
  draw(pen, frame, exact, top) {
    const levels = LEVELS.map((level) => top + level);
    if (!this.grid || this.high !== frame.y1) Object.assign(this, {grid: this.gridOn(frame, exact), high: frame.y1});
    isolines(pen, frame, exact, levels, {width: 1});
    isolines(pen, frame, this.grid, levels, {colour: pen.ink, width: 1.6});
  }

  gridOn(frame, {nx, ny}) {
    const values = new Float64Array(nx * ny);
    for (let i = 0; i < nx; i++) {
      const density = this.at(i);
      for (let j = 0; j < ny; j++)
        values[j * nx + i] = Math.log(Math.max(1e-300, density(frame.y0 + ((j + 0.5) / ny) * (frame.y1 - frame.y0))));
    }
    return {nx, ny, values};
  }

  // The density in the units of the picture at the time of a column.
  at(i) {
    const {sde, unit} = this.scene,
      c = unit(this.solved.times[i]),
      density = densityOf(this.solved, sde, i);
    return (x) => density(x / c) / c;
  }

  column(t) {
    const {times} = this.solved;
    return Math.min(times.length - 1, Math.max(0, Math.round((t / this.scene.sde.T) * times.length - 0.5)));
  }

  drawAt(pen, frame, t) {
    const density = this.at(this.column(t)),
      points = Array.from({length: 161}, (_, i) => frame.x0 + (i / 160) * (frame.x1 - frame.x0));
    pen.line(
      points.map((x) => [frame.X(x), frame.Y(density(x))]),
      {colour: pen.ink, width: 1.4, dash: [4, 3]},
    );
  }

  // The part of the mass that lies in the wrong cells.
  distance(t) {
    const i = this.column(t),
      exact = exactMasses(this.scene.law, this.scene.sde, this.solved.times[i], this.solved);
    return this.solved.masses[i].reduce((sum, q, j) => sum + Math.abs(q - exact[j]), 0) / 2;
  }
}
