// From the state of the page to laws, processes and runs; where a run stands at the time of the cursor.
import {METHODS} from "./steps.js";
import {Run, exactModel, forwardStep} from "./sampling.js";
import {parseLaw} from "./laws.js";
import {parseProcess} from "./processes.js";
import {broken} from "./museum.js";

// The controls of every simulation, and of those that may also correct, refine one path or run forwards.
export const SAMPLED = ["sde", "method", "eta", "n", "grid", "p", "seed"];
export const SIMULATED = ["sde", "method", "eta", "corr", "r", "n", "grid", "path", "dir", "p", "seed"];

// What a view has to compute anew for: the state without the entries that only change how it is seen.
export const keyOf = (state, ...seen) => JSON.stringify(Object.entries(state).filter(([name]) => !seen.includes(name)));

// The options of the method that the state has sliders for.
export function optionsOf(state, method = state.method, eta = state.eta) {
  if (["euler_maruyama", "ancestral", "dpmpp_2m_sde"].includes(method)) return {eta};
  return method === "predictor_corrector" ? {r: state.r, corrections: state.corr} : {};
}

export const gridOf = (state, method = state.method) => (state.grid === "auto" ? METHODS[method].grid : state.grid);

// A run of the state's sampler on a model, with what `changes` says otherwise.
export function runOf(state, model, changes = {}) {
  const method = changes.method ?? state.method;
  return new Run(model, {
    n: state.p,
    method,
    steps: state.n,
    grid: gridOf(state, method),
    seed: state.seed,
    path: state.path,
    options: optionsOf(state, method, changes.eta ?? state.eta),
    ...changes,
  });
}

export function sceneOf(state) {
  const law = parseLaw(state.law),
    sde = parseProcess(state.sde);
  return {law, sde, model: broken(exactModel(law, sde), state.score), unit: unitOf(law, sde, state.scale)};
}

// x -> c(t) x of unit variance at all times, where the noise would outgrow the picture or it is asked for.
export function unitOf(law, sde, scale) {
  const s = law.deviation,
    total = (t) => Math.hypot(sde.alpha(t) * s, sde.sigma(t));
  const unit = scale === "unit" || (scale === "auto" && total(sde.T) > 2.2 * Math.max(1, s));
  return unit ? (t) => s / total(t) : () => 1;
}

// Where a run is at a time: the frames around it and how far between them. Times fall, the last frame is at 0.
export function placeOf(run, t) {
  const last = run.frames.length - 1;
  let i = 0;
  while (i < last && run.stamps[i + 1] > t) i++;
  if (i >= last) return {i: last, j: last, u: 0, ready: run.done || run.stamps[last] <= t};
  return {
    i,
    j: i + 1,
    u: Math.min(1, Math.max(0, (run.stamps[i] - t) / (run.stamps[i] - run.stamps[i + 1]))),
    ready: true,
  };
}

// The first `count` numbers of two frames, u of the way from one to the other.
function between(a, b, u, count = a.length) {
  const from = count < a.length ? a.subarray(0, count) : a;
  return u === 0 ? from : from.map((value, k) => value + u * (b[k] - value));
}

// The particles of a run at a time, on the straight line between two frames.
export function stateAt(run, t, count) {
  const {i, j, u} = placeOf(run, t);
  return between(run.frames[i], run.frames[j], u, count);
}

// The forward process from given particles, as frames that can be looked at like a run's.
export class ForwardRun {
  constructor(sde, x0, n, d, steps, seed) {
    Object.assign(this, {sde, n, d, seed, steps, calls: 0, index: 0, frames: [x0]});
    this.stamps = Array.from({length: steps + 1}, (_, i) => (sde.T * i) / steps);
  }

  get done() {
    return this.index >= this.steps;
  }

  advance() {
    const {index, stamps} = this;
    this.frames.push(
      forwardStep(this.sde, this.frames[index], this.n, this.d, stamps[index], stamps[index + 1], this.seed, index),
    );
    this.index++;
    return this;
  }
}

// The particles of a forward run at a time.
export function forwardAt(run, t, count) {
  const place = Math.min(run.frames.length - 1, (t / run.sde.T) * run.steps),
    i = Math.floor(place),
    u = place - i;
  return between(run.frames[i], run.frames[Math.min(run.frames.length - 1, i + 1)], u, count);
}

export const seenAt = (run, t, count) =>
  run instanceof ForwardRun ? forwardAt(run, t, count) : stateAt(run, t, count);

// Work until the time is up; true if there is more.
export function workOn(runs, deadline) {
  for (const run of runs) {
    while (!run.done) {
      if (performance.now() > deadline) return true;
      run.advance();
    }
  }
  return false;
}

export const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;
export const signed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
