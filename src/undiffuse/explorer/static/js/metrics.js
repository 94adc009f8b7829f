// How far a cloud of particles is from the exact law, with the error that comes from having finitely many.
import {PURPOSE, normal} from "./noise.js";

// erf by its series where it converges fast and by the continued fraction of erfc elsewhere.
export function erf(x) {
  const z = Math.abs(x);
  if (z > 6) return Math.sign(x);
  if (z > 2.5) {
    let tail = z;
    for (let k = 60; k > 0; k--) tail = z + k / 2 / tail;
    return Math.sign(x) * (1 - Math.exp(-z * z) / (Math.sqrt(Math.PI) * tail));
  }
  let term = z,
    sum = z;
  for (let k = 1; Math.abs(term) > 1e-17 * sum && k < 200; k++) {
    term *= (-z * z) / k;
    sum += term / (2 * k + 1);
  }
  return ((Math.sign(x) * 2) / Math.sqrt(Math.PI)) * sum;
}

// The distribution function of a law of one dimension.
export function cdf(law, x, alpha = 1, variance = 0) {
  let sum = 0;
  for (let k = 0; k < law.K; k++) {
    const spread = Math.sqrt(alpha * alpha * law.frames[k].values[0] + variance);
    sum += law.weights[k] * 0.5 * (1 + erf((x - alpha * law.means[k]) / (spread * Math.SQRT2)));
  }
  return sum;
}

// The quantile of a law of one dimension, by bisection.
export function quantile(law, u, alpha = 1, variance = 0) {
  let low = Infinity,
    high = -Infinity;
  for (let k = 0; k < law.K; k++) {
    const reach = 9 * Math.sqrt(alpha * alpha * law.frames[k].values[0] + variance);
    low = Math.min(low, alpha * law.means[k] - reach);
    high = Math.max(high, alpha * law.means[k] + reach);
  }
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (cdf(law, middle, alpha, variance) < u) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

// The quantiles at (i + ½)/n: the points that the sorted particles are compared with.
export function quantiles(law, n, alpha = 1, variance = 0) {
  return Float64Array.from({length: n}, (_, i) => quantile(law, (i + 0.5) / n, alpha, variance));
}

const gap = (a, b) => a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;

// The W₁ distance of particles to quantiles of as many.
export const w1 = (x, wanted) => gap(Float64Array.from(x).sort(), wanted);

// The largest difference of the empirical and the exact distribution function.
export function kolmogorov(x, law, alpha = 1, variance = 0) {
  const sorted = Float64Array.from(x).sort(),
    n = sorted.length;
  return sorted.reduce((worst, value, i) => {
    const F = cdf(law, value, alpha, variance);
    return Math.max(worst, Math.abs(F - i / n), Math.abs(F - (i + 1) / n));
  }, 0);
}

// What W₁ is for n draws of the law itself: mean and deviation of its value over a few sets of draws.
export function floorOf(law, n, distance, repeats = 8) {
  const values = Array.from({length: repeats}, (_, r) => distance(law.sample(n, 977, r * n).x));
  const mean = values.reduce((a, b) => a + b, 0) / repeats;
  return {mean, std: Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / (repeats - 1))};
}

// The root mean square over directions of W₂ between projections of two clouds of as many points, as in metrics.py.
export function slicedW2(x, y, d, projections = 32) {
  const n = x.length / d,
    directions = normal(0, PURPOSE.PROBE, 0, 0, projections, d);
  let total = 0;
  for (let p = 0; p < projections; p++) {
    const u = directions.subarray(p * d, (p + 1) * d),
      length = Math.hypot(...u);
    const a = projected(x, u, length, n, d).sort(),
      b = projected(y, u, length, n, d).sort();
    total += a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / n;
  }
  return Math.sqrt(total / projections);
}

function projected(x, u, length, n, d) {
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) for (let j = 0; j < d; j++) out[i] += (x[i * d + j] * u[j]) / length;
  return out;
}

// The component that each particle most probably came from.
export function owners(law, x, n, alpha = 1, variance = 0) {
  const lens = law.at(alpha, variance);
  return Int32Array.from({length: n}, (_, i) => {
    lens.see(x, i * law.d);
    return lens.r.reduce((best, value, k) => (value > lens.r[best] ? k : best), 0);
  });
}

// Half the sum of |share of a component - its weight|.
export function weightError(law, own) {
  const share = new Float64Array(law.K);
  own.forEach((k) => {
    share[k] += 1 / own.length;
  });
  return share.reduce((sum, value, k) => sum + Math.abs(value - law.weights[k]), 0) / 2;
}

export function meanAndStd(x, d, j = 0) {
  const n = x.length / d;
  let sum = 0,
    square = 0;
  for (let i = 0; i < n; i++) {
    sum += x[i * d + j];
    square += x[i * d + j] ** 2;
  }
  return [sum / n, Math.sqrt(Math.max(0, square / n - (sum / n) ** 2))];
}
