// What rivers are made of: the exact law of x_t for all t on a grid, and the paths over it.
import {ForwardRun, seenAt} from "./scene.js";

const COLUMNS = 220,
  ROWS = 180,
  MOST_PATHS = 70;

// The times of the columns of a river from 0 to T.
export const columnTimes = (T) =>
  Array.from({length: COLUMNS}, (_, i) => Math.max(T * 1e-4, ((i + 0.5) / COLUMNS) * T));

// log p_t of a law on columns of time and rows of (scaled) x.
export function riverGrid({law, sde, unit}, frame) {
  const values = new Float64Array(COLUMNS * ROWS),
    point = new Float64Array(1),
    times = columnTimes(sde.T);
  for (let i = 0; i < COLUMNS; i++) {
    const t = times[i],
      c = unit(t);
    const lens = law.at(sde.alpha(t), sde.variance(t));
    for (let j = 0; j < ROWS; j++) {
      point[0] = (frame.y0 + ((j + 0.5) / ROWS) * (frame.y1 - frame.y0)) / c;
      values[j * COLUMNS + i] = lens.logProb(point) - Math.log(c);
    }
  }
  return {nx: COLUMNS, ny: ROWS, values};
}

// How far up and down the picture has to reach: four deviations of every component at the ends.
export function reach({law, sde, unit}) {
  let high = 0;
  for (const t of [0, 0.1, 0.25, 0.5, 1]) {
    const s = t * sde.T,
      alpha = sde.alpha(s),
      c = unit(Math.max(s, 1e-4 * sde.T));
    for (let k = 0; k < law.K; k++) {
      const spread = Math.sqrt(alpha * alpha * law.frames[k].values[0] + sde.variance(s));
      high = Math.max(high, c * (Math.abs(alpha * law.means[k]) + 3.2 * spread));
    }
  }
  return high;
}

// Paths of a run from its start to a time, thinned where they are many or long; `project` gives a path's points.
export function drawPaths(pen, frame, run, t, {unit, colours, alpha = 0.55, width = 1}) {
  const forward = run instanceof ForwardRun,
    every = Math.max(1, Math.floor(run.frames.length / 250));
  const shown = [...run.frames.keys()]
    .filter((i) => i % every === 0 || i === run.frames.length - 1)
    .filter((i) => (forward ? run.stamps[i] <= t : run.stamps[i] >= t));
  const now = seenAt(run, t),
    most = Math.min(run.n, MOST_PATHS);
  for (let p = 0; p < most; p++) {
    const points = shown.map((i) => [frame.X(run.stamps[i]), frame.Y(unit(run.stamps[i]) * run.frames[i][p])]);
    points.push([frame.X(t), frame.Y(unit(t) * now[p])]);
    pen.line(points, {colour: colours(p), alpha, width});
  }
  for (let p = 0; p < most; p++) pen.mark(frame.X(t), frame.Y(unit(t) * now[p]), 2, 0, colours(p), 0.95);
}
