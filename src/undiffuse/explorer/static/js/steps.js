// The samplers: a method makes a step (x at node t) -> x at node s; the same formulas as undiffuse/steps.
import {offsetsOf, row} from "./exponential.js";

const add = (x, y, c) => x.map((value, j) => value + c * y[j]);

// The exponential first-order step from α = 0: x_s = α_s D + σ_s ε.
const leap = (run, x, t, s, eps) =>
  add(
    eps.map((e) => s.sigma * e),
    run.denoise(x, t.t),
    s.alpha,
  );

// The reverse SDE with noise η g: x + drift (s - t) + η g √|s - t| ξ.
function eulerMaruyama(run, {eta = 1} = {}) {
  return (x, t, s) => {
    if (eta && t.alpha === 0) return leap(run, x, t, s, run.normal(t.t, s.t));
    const moved = add(x, run.drift(x, t.t, eta), s.t - t.t);
    return eta ? add(moved, run.normal(t.t, s.t), eta * Math.sqrt(run.sde.g2(t.t)) * Math.sqrt(t.t - s.t)) : moved;
  };
}

// The chain run backwards as it was run forwards: (2 - a) x + G² ∇log p_t + G ξ.
function reverseDiffusion(run) {
  return (x, t, s) => {
    const a = t.alpha / s.alpha,
      G2 = t.sigma ** 2 - a * a * s.sigma ** 2;
    const score = run.score(x, t),
      z = run.normal(t.t, s.t),
      G = Math.sqrt(G2);
    return x.map((value, j) => (2 - a) * value + G2 * score[j] + G * z[j]);
  };
}

// A multistep row of the exponential family; η is its stochasticity.
function multistep(order, rule, eta0 = 0) {
  return (run, {eta = eta0} = {}) => {
    let values = [];
    return (x, t, s) => {
      const {carry, weights, spread} = row(t, s, offsetsOf(run.nodes, run.index, order), eta, rule);
      values = [run.denoise(x, t.t), ...values].slice(0, order);
      let out = x.map((value) => value * carry);
      weights.forEach((w, j) => {
        out = add(out, values[j], w);
      });
      return eta ? add(out, run.normal(t.t, s.t), spread) : out;
    };
  };
}

const TABLEAUX = {
  euler: [[0], [[]], [1]],
  midpoint: [
    [0, 0.5],
    [[], [0.5]],
    [0, 1],
  ],
  heun: [
    [0, 1],
    [[], [1]],
    [0.5, 0.5],
  ],
  rk4: [
    [0, 0.5, 0.5, 1],
    [[], [0.5], [0, 0.5], [0, 0, 1]],
    [1 / 6, 1 / 3, 1 / 3, 1 / 6],
  ],
};

// A Runge-Kutta method in t for the probability-flow ODE.
function rungeKutta(name) {
  const [c, a, b] = TABLEAUX[name];
  const combine = (x, h, weights, slopes) => weights.reduce((out, w, k) => (w ? add(out, slopes[k], h * w) : out), x);
  return (run) => (x, t, s) => {
    const h = s.t - t.t,
      slopes = [];
    c.forEach((node, k) => slopes.push(run.drift(combine(x, h, a[k], slopes), node === 1 ? s.t : t.t + node * h, 0)));
    return combine(x, h, b, slopes);
  };
}

// One Langevin step at a node: x + ε ∇log p + √(2ε) ξ, ε a number for each sample.
function langevin(run, x, score, z, size) {
  return x.map((value, j) => {
    const eps = size(Math.floor(j / run.d));
    return value + eps * score[j] + Math.sqrt(2 * eps) * z[j];
  });
}

const square = (x, i, d) => x.subarray(i * d, (i + 1) * d).reduce((sum, value) => sum + value * value, 0);

// Reverse diffusion, then Langevin corrections with ε = 2 (α_t/α_s)² (r ‖ξ‖/‖∇log p‖)².
function predictorCorrector(run, {r = 0.16, corrections = 1} = {}) {
  const predict = reverseDiffusion(run);
  return (x, t, s) => {
    let out = predict(x, t, s);
    for (let k = 0; k < corrections; k++) {
      const score = run.score(out, s),
        z = run.normal(s.t, s.t, 16 + k),
        {d} = run;
      const least = d / ((s.alpha * run.model.deviation) ** 2 + s.sigma ** 2),
        thin = (t.alpha / s.alpha) ** 2;
      out = langevin(
        run,
        out,
        score,
        z,
        (i) => (2 * thin * r * r * square(z, i, d)) / Math.max(least, square(score, i, d)),
      );
    }
    return out;
  };
}

// At every node a few Langevin steps with ε = size·σ²; from node to node x/α stays.
function annealedLangevin(run, {size = 0.1, repeats = 5} = {}) {
  return (x, t, s) => {
    const scale = t.alpha ? s.alpha / t.alpha : s.sigma / t.sigma;
    let out = x.map((value) => scale * value);
    for (let k = 0; k < repeats; k++) {
      out = langevin(run, out, run.score(out, s), run.normal(s.t, s.t, k), () => size * s.sigma ** 2);
    }
    return out;
  };
}

// name: title, whether it follows the SDE, default grid, evaluations per step, order, constructor.
export const METHODS = {
  euler_maruyama: {label: "Euler–Maruyama", sde: true, grid: "time", calls: 1, order: 1, make: eulerMaruyama},
  reverse_diffusion: {label: "Reverse diffusion", sde: true, grid: "time", calls: 1, order: 1, make: reverseDiffusion},
  ancestral: {
    label: "Ancestral (DDPM)",
    sde: true,
    grid: "log_snr",
    calls: 1,
    order: 1,
    make: multistep(1, "exact", 1),
  },
  dpmpp_2m_sde: {
    label: "DPM-Solver++ 2M, SDE",
    sde: true,
    grid: "log_snr",
    calls: 1,
    order: 2,
    make: multistep(2, "midpoint", 1),
  },
  predictor_corrector: {
    label: "Predictor–corrector",
    sde: true,
    grid: "time",
    calls: 2,
    order: 1,
    make: predictorCorrector,
  },
  annealed_langevin: {
    label: "Annealed Langevin",
    sde: true,
    grid: "log_snr",
    calls: 5,
    order: 0,
    make: annealedLangevin,
  },
  ddim: {label: "DDIM", sde: false, grid: "log_snr", calls: 1, order: 1, make: multistep(1, "exact")},
  euler: {label: "Euler", sde: false, grid: "log_snr", calls: 1, order: 1, make: rungeKutta("euler")},
  heun: {label: "Heun", sde: false, grid: "karras", calls: 2, order: 2, make: rungeKutta("heun")},
  midpoint: {label: "Midpoint", sde: false, grid: "log_snr", calls: 2, order: 2, make: rungeKutta("midpoint")},
  rk4: {label: "Runge–Kutta 4", sde: false, grid: "log_snr", calls: 4, order: 4, make: rungeKutta("rk4")},
  dpmpp_2m: {label: "DPM-Solver++ 2M", sde: false, grid: "log_snr", calls: 1, order: 2, make: multistep(2, "midpoint")},
  dpmpp_3m: {label: "DPM-Solver++ 3M", sde: false, grid: "log_snr", calls: 1, order: 3, make: multistep(3, "exact")},
};
