// Models made of models: guidance by class, and a question y = A x + n answered exactly or by four approximations.
import {PURPOSE, normal} from "./noise.js";
import {exactModel} from "./sampling.js";

// D = D(x | other) + w (D(x | label) - D(x | other)) where low ≤ t ≤ high, D(x | label) elsewhere; other null: no class.
export function guided(law, sde, {label, w, low = 0, high = Infinity, other = null}) {
  const model = exactModel(law, sde);
  model.denoise = (x, n, t) => {
    const lens = law.at(sde.alpha(t), sde.variance(t)),
      wanted = lens.denoise(x, n, label);
    if (w === 1 || t < low || t > high) return wanted;
    const base = lens.denoise(x, n, other);
    return base.map((value, j) => value + w * (wanted[j] - value));
  };
  return model;
}

// log of the tilted target p(x) (p(x|label)/p(x|other))^w at t = 0, not normalised.
export function tilted(law, x, at, {label, w, other = null}) {
  const lens = law.at();
  const base = lens.logProb(x, at, other),
    wanted = lens.logProb(x, at, label);
  return base + w * (wanted - base);
}

// What each method takes for Cov(x_0 | x_t) in p(y | x_t) ≈ N(A D, A C Aᵀ + std²), and how the gradient is scaled.
export const ANSWERS = {
  exact: "Exact posterior",
  replacement: "Replacement",
  dps: "DPS",
  pigdm: "ΠGDM",
  mmps: "Tweedie moments (MMPS)",
};

// The model of p(x | y) that a method uses; a is one row of A (d numbers), y a number, std > 0.
export function observed(law, sde, {a, y, std}, method, strength = 1) {
  if (method === "exact") return exactModel(law.posterior(Float64Array.from(a), [y], std), sde);
  const model = exactModel(law, sde);
  if (method !== "replacement") {
    model.denoise = (x, n, t) => pulled(law.at(sde.alpha(t), sde.variance(t)), x, n, {a, y, std}, method, strength);
  }
  return model;
}

// D + C a (y - a·D)/(a·V a + std²): C is the exact covariance, V what the method believes it to be.
function pulled(lens, x, n, {a, y, std}, method, strength) {
  const {d} = lens.law,
    out = new Float64Array(n * d),
    level2 = lens.variance / lens.alpha ** 2,
    D = new Float64Array(d),
    Ca = new Float64Array(d);
  const inner = (u) => a.reduce((sum, v, i) => sum + v * u[i], 0),
    own = (level2 / (1 + level2)) * inner(a);
  for (let at = 0; at < n * d; at += d) {
    lens.covarianceAlong(x, at, a, D, Ca);
    const gap = y - inner(D),
      believed = method === "mmps" ? inner(Ca) : method === "pigdm" ? own : 0;
    const pull =
      method === "dps" ? (strength * gap) / (std * Math.max(std, Math.abs(gap))) : gap / (believed + std * std);
    for (let i = 0; i < d; i++) out[at + i] = D[i] + Ca[i] * pull;
  }
  return out;
}

const IMPUTE = 16 + 1024 * 8 + 896,
  WORDS = 2 ** 34;

// After every step the part of x along a is replaced by a draw of the diffusion of y.
export function replacement({a, y, std}) {
  const norm = a.reduce((s, v) => s + v * v, 0);
  return (run, x, node) => {
    const z = normal(run.seed, PURPOSE.STEP, (run.index + 1) * WORDS + IMPUTE, run.first, run.n, 1),
      {d} = run;
    return x.map((value, j) => {
      const i = Math.floor(j / d),
        along = a.reduce((s, v, c) => s + v * x[i * d + c], 0);
      const known = node.alpha * y + Math.hypot(node.sigma * Math.sqrt(norm), node.alpha * std) * z[i];
      return value + (a[j % d] / norm) * (known - along);
    });
  };
}
