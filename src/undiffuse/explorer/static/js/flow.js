// The probability-flow ODE through given points, in either direction of time, and the density that it carries along.
import {METHODS} from "./steps.js";
import {driftOf} from "./sampling.js";

// The states at all of the times, by a Runge-Kutta method.
export function flow(model, x, n, times, method = "heun") {
  const step = METHODS[method].make({drift: (y, t) => driftOf(model, y, n, t, 0)}),
    frames = [x];
  for (let i = 0; i + 1 < times.length; i++) frames.push(step(frames[i], {t: times[i]}, {t: times[i + 1]}));
  return frames;
}

export const evenly = (from, to, steps) => Array.from({length: steps + 1}, (_, i) => from + ((to - from) * i) / steps);

// The path of one number from t0 to t1 as points (t, x).
export function flowLine(model, x, t0, t1, steps = 120) {
  const times = evenly(t0, t1, steps);
  return flow(model, Float64Array.of(x), 1, times).map((at, i) => [times[i], at[0]]);
}
