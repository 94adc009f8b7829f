// Gaussian mixtures Σ_k w_k N(μ_k, Σ_k), as in exact.py: every diffused density, score and denoiser in closed form.
// Points are rows of one Float64Array of n·d numbers.
import {PURPOSE, normal, uniform} from "./noise.js";
import {rotated, scaledFrame, unrotated} from "./frames.js";
import {Lens} from "./lens.js";
import {cholesky, eigen, forward, identity, matmul, solve, transpose} from "./linalg.js";

export class Mixture {
  // weights (K), means (K·d), labels (K) or null; a covariance is a matrix of d·d numbers, a variance, or {basis, values}.
  constructor(weights, means, covariances, d, labels = null) {
    const total = weights.reduce((a, b) => a + b, 0);
    this.weights = Float64Array.from(weights, (w) => w / total);
    Object.assign(this, {d, K: weights.length, means: Float64Array.from(means), labels});
    this.isotropic = covariances.every((c) => typeof c === "number");
    const upright = identity(d);
    this.frames = Array.from(covariances, (c) =>
      typeof c === "number" ? {basis: upright, values: new Float64Array(d).fill(c)} : c.basis ? c : eigen(c, d),
    );
    this.centres = this.frames.map((frame, k) => rotated(frame.basis, this.mean(k), d));
    this.classes = labels ? Math.max(...labels) + 1 : 0;
  }

  mean(k) {
    return this.means.subarray(k * this.d, (k + 1) * this.d);
  }

  covariance(k) {
    this.matrices ??= [];
    return (this.matrices[k] ??= scaledFrame(this.frames[k], (value) => value, this.d));
  }

  // What the constructor takes for a component's covariance: a variance where all are round.
  spread(k) {
    return this.isotropic ? this.frames[k].values[0] : this.covariance(k);
  }

  // The moments of the whole law: mean, and covariance in its eigenbasis.
  get moments() {
    if (!this.ownMoments) this.ownMoments = measured(this);
    return this.ownMoments;
  }

  // σ_data: the root mean variance of a coordinate.
  get deviation() {
    return Math.max(1e-6, Math.sqrt(this.moments.values.reduce((a, b) => a + b, 0) / this.d));
  }

  // Draws first ... first + n - 1 with their components.
  sample(n, seed = 0, first = 0) {
    const u = uniform(seed, PURPOSE.DATA, 0, first, n),
      z = normal(seed, PURPOSE.DATA, 1, first, n, this.d);
    const x = new Float64Array(n * this.d),
      component = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      const k = (component[i] = this.pick(u[i])),
        {basis, values} = this.frames[k];
      for (let a = 0; a < this.d; a++) {
        let sum = this.means[k * this.d + a];
        for (let b = 0; b < this.d; b++) sum += basis[a * this.d + b] * (z[i * this.d + b] * Math.sqrt(values[b]));
        x[i * this.d + a] = sum;
      }
    }
    return {x, component};
  }

  pick(u) {
    let sum = 0;
    for (let k = 0; k < this.K - 1; k++) if (u < (sum += this.weights[k])) return k;
    return this.K - 1;
  }

  // The law of x_t seen through α and σ²: what all questions at one time share.
  at(alpha = 1, variance = 0) {
    if (!this.last || this.last.alpha !== alpha || this.last.variance !== variance) {
      this.last = new Lens(this, alpha, variance);
    }
    return this.last;
  }

  given(label) {
    const keep = [...Array(this.K).keys()].filter((k) => this.labels[k] === label);
    return new Mixture(
      keep.map((k) => this.weights[k]),
      keep.flatMap((k) => [...this.mean(k)]),
      keep.map((k) => this.spread(k)),
      this.d,
    );
  }

  // The law of x_0 given y = A x_0 + n, n ~ N(0, std²): A is (m, d); a mixture again, by Kalman's formulas.
  posterior(A, y, std) {
    const steps = this.conditioning(A, y, std);
    for (;;) {
      const {value, done} = steps.next();
      if (done) return value;
    }
  }

  // The same, one component at a time; those whose weight falls below `least` times the largest are left out.
  *conditioning(A, y, std, least = 0) {
    const logs = this.logEvidences(A, y, std),
      top = logs.reduce((a, b) => Math.max(a, b)),
      parts = [];
    const kept = [...logs.keys()].filter((k) => Math.exp(logs[k] - top) >= least);
    for (const k of kept) {
      const {mean, covariance} = conditioned(this, k, A, std, seenComponent(this, k, A, y, std));
      parts.push({mean, frame: eigen(covariance, this.d)});
      yield;
    }
    return new Mixture(
      kept.map((k) => Math.exp(logs[k] - top)),
      parts.flatMap(({mean}) => [...mean]),
      parts.map(({frame}) => frame),
      this.d,
      this.labels && kept.map((k) => this.labels[k]),
    );
  }

  // log w_k N(y; A μ_k, A Σ_k Aᵀ + std²)
  logEvidences(A, y, std) {
    return Array.from(
      {length: this.K},
      (_, k) => Math.log(this.weights[k]) + seenComponent(this, k, A, y, std).logEvidence,
    );
  }

  // p(class | y), which needs no eigenvectors.
  classEvidence(A, y, std) {
    const logs = this.logEvidences(A, y, std),
      top = logs.reduce((a, b) => Math.max(a, b)),
      p = new Float64Array(this.classes);
    logs.forEach((l, k) => {
      p[this.labels[k]] += Math.exp(l - top);
    });
    const total = p.reduce((a, b) => a + b, 0);
    return p.map((value) => value / total);
  }
}

function measured(law) {
  const {d, K} = law,
    mean = new Float64Array(d),
    total = new Float64Array(d * d);
  for (let k = 0; k < K; k++)
    law.mean(k).forEach((value, i) => {
      mean[i] += law.weights[k] * value;
    });
  for (let k = 0; k < K; k++) {
    const own = law.spread(k),
      apart = law.mean(k).map((value, i) => value - mean[i]),
      part = law.isotropic ? (i) => (i % (d + 1) === 0 ? own : 0) : (i) => own[i];
    for (let i = 0; i < d * d; i++) total[i] += law.weights[k] * (part(i) + apart[Math.floor(i / d)] * apart[i % d]);
  }
  return {mean, ...eigen(total, d)};
}

// Draws of N(α μ, α² C + σ² I) from standard normals, with the law's moments.
export function momentPrior({mean, basis, values}, eps, n, d, alpha, sigma) {
  const out = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    const y = rotated(basis, eps.subarray(i * d, (i + 1) * d), d);
    const scaled = y.map((value, j) => Math.sqrt(alpha * alpha * values[j] + sigma * sigma) * value);
    out.set(
      unrotated(basis, scaled, d).map((value, j) => value + alpha * mean[j]),
      i * d,
    );
  }
  return out;
}

// One component seen through y = A x + n: the factor L of S = A Σ Aᵀ + R, A Σ, y - A μ and log N(y; A μ, S).
function seenComponent(law, k, A, y, std) {
  const {d} = law,
    m = y.length,
    AC = matmul(A, law.covariance(k), m, d, d),
    S = matmul(AC, transpose(A, m, d), m, d, m);
  for (let i = 0; i < m; i++) S[i * m + i] += std * std;
  const L = cholesky(S, m),
    gap = matmul(A, law.mean(k), m, d, 1).map((value, i) => y[i] - value),
    white = forward(L, m, gap);
  let logEvidence = -0.5 * m * Math.log(2 * Math.PI);
  for (let i = 0; i < m; i++) logEvidence -= 0.5 * white[i] ** 2 + Math.log(L[i * m + i]);
  return {L, AC, gap, logEvidence};
}

// μ + G gap and (I - G A) Σ (I - G A)ᵀ + G R Gᵀ with the gain G = Σ Aᵀ S⁻¹.
function conditioned(law, k, A, std, {L, AC, gap}) {
  const {d} = law,
    m = gap.length,
    gain = new Float64Array(d * m),
    kept = identity(d);
  for (let i = 0; i < d; i++)
    gain.set(
      solve(
        L,
        m,
        Float64Array.from({length: m}, (_, j) => AC[j * d + i]),
      ),
      i * m,
    );
  matmul(gain, A, d, m, d).forEach((value, i) => {
    kept[i] -= value;
  });
  const left = matmul(matmul(kept, law.covariance(k), d, d, d), transpose(kept, d, d), d, d, d);
  const right = matmul(gain, transpose(gain, d, m), d, m, d),
    total = left.map((value, i) => value + std * std * right[i]);
  const shift = matmul(gain, gap, d, m, 1),
    turned = transpose(total, d, d);
  return {
    mean: law.mean(k).map((value, i) => value + shift[i]),
    covariance: total.map((value, i) => (value + turned[i]) / 2),
  };
}
