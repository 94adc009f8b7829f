// The driver of every sampler, as in sampling.py, one step at a time so that a page can draw in between.
import {Motion, PURPOSE, normal} from "./noise.js";
import {momentPrior} from "./mixture.js";
import {timeGrid} from "./grid.js";
import {METHODS} from "./steps.js";

// The exact model E[x_0 | x_t] of a law under a process, of one class where a label is given.
export function exactModel(law, sde, label = null) {
  return {
    law,
    sde,
    label,
    d: law.d,
    moments: law.moments,
    deviation: law.deviation,
    denoise: (x, n, t) => law.at(sde.alpha(t), sde.variance(t)).denoise(x, n, label),
  };
}

// α' D + σ' ε̂ + ½ η² (g²/σ) ε̂, the drift of the reverse SDE with noise η g; η = 0 is the velocity of the ODE.
export function driftOf(model, x, n, t, eta) {
  const D = model.denoise(x, n, t),
    {sde} = model,
    alpha = sde.alpha(t),
    sigma = sde.sigma(t),
    [dalpha, dsigma] = sde.rates(t);
  const rate = eta ? dsigma + (0.5 * eta * eta * sde.g2(t)) / sigma : dsigma;
  return x.map((value, j) => dalpha * D[j] + (rate * (value - alpha * D[j])) / sigma);
}

// Where sampling stops: σ/α is 0.004 of the data's deviation.
export const endOf = (model) => model.sde.timeOf(-Math.log(0.004 * model.deviation));

const STAGES = 16,
  WORDS = 2 ** 34;

// A sampler on its way from noise to data; `frames` keeps every state, the last one denoised.
export class Run {
  constructor(
    model,
    {
      n = 100,
      method = "ddim",
      steps = 20,
      grid,
      seed = 0,
      first = 0,
      start,
      end,
      path = false,
      options = {},
      from = null,
      after = null,
      keep = true,
    },
  ) {
    Object.assign(this, {model, n, seed, first, options, after, keep, calls: 0, index: 0, memory: null});
    this.sde = model.sde;
    this.d = model.d;
    const last = end ?? endOf(model),
      grid0 = grid || METHODS[method].grid;
    this.times = timeGrid(this.sde, steps, grid0, last, model.deviation, start ?? this.sde.T);
    this.nodes = this.times.map((t) => this.sde.node(t));
    this.motion = path ? new Motion(seed, first, n, this.d, last, this.times[0]) : null;
    this.method = METHODS[method].make(this, options);
    this.x = from ? Float64Array.from(from) : this.prior();
    this.frames = [this.x];
    this.stamps = [...this.times, 0];
  }

  get steps() {
    return this.times.length - 1;
  }

  get done() {
    return this.index > this.steps;
  }

  prior() {
    const eps = normal(this.seed, PURPOSE.INIT, 0, this.first, this.n, this.d),
      {alpha, sigma} = this.nodes[0];
    return momentPrior(this.model.moments, eps, this.n, this.d, alpha, sigma);
  }

  // One step, or at the end x = D(x, t).
  advance() {
    const i = this.index,
      last = i === this.steps;
    this.x = last ? this.denoise(this.x, this.times[i]) : this.method(this.x, this.nodes[i], this.nodes[i + 1]);
    if (this.after && !last) this.x = this.after(this, this.x, this.nodes[i + 1]);
    this.index++;
    if (this.keep) this.frames.push(this.x);
    return this;
  }

  finish() {
    while (!this.done) this.advance();
    return this;
  }

  denoise(x, t) {
    this.calls++;
    return this.model.denoise(x, this.n, t);
  }

  // ∇ log p_t = (α D - x)/σ²
  score(x, node) {
    const D = this.denoise(x, node.t),
      variance = node.sigma ** 2;
    return x.map((value, j) => (node.alpha * D[j] - value) / variance);
  }

  drift(x, t, eta) {
    this.calls++;
    return driftOf(this.model, x, this.n, t, eta);
  }

  // Standard normals of a stage of this step, for the noise between two times.
  normal(from, to, stage = 0) {
    if (this.motion && stage < STAGES && to < from) return this.motion.increment(from, to);
    return normal(this.seed, PURPOSE.STEP, this.index * WORDS + stage, this.first, this.n, this.d);
  }
}

// The process run forward by Euler and Maruyama, all states.
export function simulate(sde, x0, n, d, steps, seed = 0, end = sde.T) {
  const frames = [Float64Array.from(x0)],
    times = Array.from({length: steps + 1}, (_, i) => (end * i) / steps);
  for (let i = 0; i < steps; i++) frames.push(forwardStep(sde, frames[i], n, d, times[i], times[i + 1], seed, i));
  return {frames, times};
}

export function forwardStep(sde, x, n, d, t, s, seed, i) {
  const z = normal(seed, PURPOSE.STEP, i, 0, n, d),
    f = sde.f(t),
    g = Math.sqrt(sde.g2(t)),
    dt = s - t,
    root = Math.sqrt(dt);
  return x.map((value, j) => value + f * value * dt + g * root * z[j]);
}
