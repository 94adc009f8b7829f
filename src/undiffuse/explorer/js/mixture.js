// Gaussian mixtures Σ_k w_k N(μ_k, Σ_k), as in exact.py: every diffused density, score and denoiser in closed form.
// Points are rows of one Float64Array of n·d numbers.
import {PURPOSE, normal, uniform} from "./noise.js";
import {cholesky, eigen, forward, identity, matmul, solve, transpose} from "./linalg.js";

export class Mixture {
  // weights (K), means (K·d), labels (K) or null; a covariance is a matrix of d·d numbers, a variance, or {basis, values}.
  constructor(weights, means, covariances, d, labels = null) {
    const total = weights.reduce((a, b) => a + b, 0);
    this.weights = Float64Array.from(weights, (w) => w / total);
    Object.assign(this, {d, K: weights.length, means: Float64Array.from(means), labels});
    this.isotropic = covariances.every((c) => typeof c === "number");
    this.frames = Array.from(covariances, (c) => (typeof c === "number"
      ? {basis: identity(d), values: new Float64Array(d).fill(c)} : c.basis ? c : eigen(c, d)));
    this.centres = this.frames.map((frame, k) => rotated(frame.basis, this.mean(k), d));
    this.classes = labels ? Math.max(...labels) + 1 : 0;
  }

  mean(k) { return this.means.subarray(k * this.d, (k + 1) * this.d); }

  covariance(k) {
    this.matrices ??= [];
    return this.matrices[k] ??= scaledFrame(this.frames[k], (value) => value, this.d);
  }

  // The moments of the whole law: mean, and covariance in its eigenbasis.
  get moments() {
    if (!this.ownMoments) this.ownMoments = measured(this);
    return this.ownMoments;
  }

  // σ_data: the root mean variance of a coordinate.
  get deviation() { return Math.max(1e-6, Math.sqrt(this.moments.values.reduce((a, b) => a + b, 0) / this.d)); }

  // Draws first ... first + n - 1 with their components.
  sample(n, seed = 0, first = 0) {
    const u = uniform(seed, PURPOSE.DATA, 0, first, n), z = normal(seed, PURPOSE.DATA, 1, first, n, this.d);
    const x = new Float64Array(n * this.d), component = new Int32Array(n);
    for (let i = 0; i < n; i++) {
      const k = component[i] = this.pick(u[i]), {basis, values} = this.frames[k];
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
    return new Mixture(keep.map((k) => this.weights[k]), keep.flatMap((k) => [...this.mean(k)]),
      keep.map((k) => this.covariance(k)), this.d);
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
  * conditioning(A, y, std, least = 0) {
    const logs = this.logEvidences(A, y, std), top = logs.reduce((a, b) => Math.max(a, b)), parts = [];
    const kept = [...logs.keys()].filter((k) => Math.exp(logs[k] - top) >= least);
    for (const k of kept) {
      const {mean, covariance} = conditioned(this, k, A, std, seenComponent(this, k, A, y, std));
      parts.push({mean, frame: eigen(covariance, this.d)});
      yield;
    }
    return new Mixture(kept.map((k) => Math.exp(logs[k] - top)), parts.flatMap(({mean}) => [...mean]),
      parts.map(({frame}) => frame), this.d, this.labels && kept.map((k) => this.labels[k]));
  }

  // log w_k N(y; A μ_k, A Σ_k Aᵀ + std²)
  logEvidences(A, y, std) {
    return Array.from({length: this.K}, (_, k) => Math.log(this.weights[k]) + seenComponent(this, k, A, y, std).logEvidence);
  }

  // p(class | y), which needs no eigenvectors.
  classEvidence(A, y, std) {
    const logs = this.logEvidences(A, y, std), top = logs.reduce((a, b) => Math.max(a, b)), p = new Float64Array(this.classes);
    logs.forEach((l, k) => { p[this.labels[k]] += Math.exp(l - top); });
    const total = p.reduce((a, b) => a + b, 0);
    return p.map((value) => value / total);
  }
}

// The components of x_t: N(α μ_k, α² Σ_k + σ² I), with everything that does not depend on x computed once.
export class Lens {
  constructor(law, alpha, variance) {
    const {d, K} = law;
    Object.assign(this, {law, alpha, variance, inverse: new Float64Array(K * d), gain: new Float64Array(K * d)});
    this.logNorm = new Float64Array(K);
    for (let k = 0; k < K; k++) {
      let sum = 0;
      law.frames[k].values.forEach((value, j) => {
        const spread = alpha * alpha * value + variance;
        this.inverse[k * d + j] = 1 / spread;
        this.gain[k * d + j] = alpha * value / spread;
        sum += Math.log(2 * Math.PI * spread);
      });
      this.logNorm[k] = Math.log(law.weights[k]) - 0.5 * sum;
    }
    this.y = new Float64Array(K * d);
    this.r = new Float64Array(K);
  }

  // Fills r with log w_k N_k(x) and y with the coordinates of x - α μ_k in the eigenbases; returns the largest log.
  see(x, at) {
    const {law: {d, K, frames, centres, isotropic, means}, alpha, inverse, y, r} = this;
    let top = -Infinity;
    for (let k = 0; k < K; k++) {
      const basis = frames[k].basis, centre = centres[k];
      let square = 0;
      for (let j = 0; j < d; j++) {
        let c = 0;
        if (isotropic) c = x[at + j] - alpha * means[k * d + j];
        else {
          for (let i = 0; i < d; i++) c += x[at + i] * basis[i * d + j];
          c -= alpha * centre[j];
        }
        y[k * d + j] = c;
        square += c * c * inverse[k * d + j];
      }
      r[k] = this.logNorm[k] - 0.5 * square;
      if (r[k] > top) top = r[k];
    }
    return top;
  }

  // Turns r into responsibilities, of one class where a label is given; returns log p.
  soften(top, label) {
    const {r, law: {labels, K}} = this;
    let best = top, total = 0;
    if (label !== null) {
      best = -Infinity;
      for (let k = 0; k < K; k++) if (labels[k] !== label) r[k] = -Infinity; else if (r[k] > best) best = r[k];
    }
    for (let k = 0; k < K; k++) total += r[k] = Math.exp(r[k] - best);
    for (let k = 0; k < K; k++) r[k] /= total;
    return best + Math.log(total);
  }

  logProb(x, at = 0, label = null) {
    if (label !== null) return this.soften(this.see(x, at), label);
    const top = this.law.d === 2 ? this.logsInPlane(x[at], x[at + 1]) : this.see(x, at), {r} = this;
    let total = 0;
    for (let k = 0; k < r.length; k++) if (r[k] > top - 40) total += Math.exp(r[k] - top);
    return top + Math.log(total);
  }

  // Like `see`, for the density in the plane alone: r from the quadratic forms of the components.
  logsInPlane(x, y) {
    const {law: {K}, logNorm, r} = this, forms = this.forms ??= this.quadraticForms();
    let top = -Infinity;
    for (let k = 0, f = 0; k < K; k++, f += 5) {
      const dx = x - forms[f], dy = y - forms[f + 1];
      r[k] = logNorm[k] - 0.5 * (forms[f + 2] * dx * dx + 2 * forms[f + 3] * dx * dy + forms[f + 4] * dy * dy);
      if (r[k] > top) top = r[k];
    }
    return top;
  }

  // (α μ, the inverse covariance) of every component in the plane, five numbers each.
  quadraticForms() {
    const {law: {K, frames, means}, alpha, inverse} = this;
    return Float64Array.from({length: 5 * K}, (_, i) => {
      const k = Math.floor(i / 5), q = frames[k].basis, a = inverse[2 * k], b = inverse[2 * k + 1];
      return [alpha * means[2 * k], alpha * means[2 * k + 1], a * q[0] * q[0] + b * q[1] * q[1], a * q[0] * q[2] + b * q[1] * q[3],
        a * q[2] * q[2] + b * q[3] * q[3]][i % 5];
    });
  }

  responsibilities(x, at = 0, label = null) {
    this.soften(this.see(x, at), label);
    return Float64Array.from(this.r);
  }

  // ∇ log p_t at n points.
  score(x, n, label = null) { return this.sum(x, n, label, this.inverse, -1, 0); }

  // E[x_0 | x_t] at n points.
  denoise(x, n, label = null) { return this.sum(x, n, label, this.gain, 1, 1); }

  // Σ_k r_k (own μ_k + sign Q_k (coefficient · y_k)) at n points.
  sum(x, n, label, coefficient, sign, own) {
    const {law: {d, K, frames, means, isotropic}, y, r} = this, out = new Float64Array(n * d);
    for (let at = 0; at < n * d; at += d) {
      this.soften(this.see(x, at), label);
      for (let k = 0; k < K; k++) {
        if (r[k] < 1e-300) continue;
        for (let j = 0; j < d; j++) {
          const value = sign * r[k] * coefficient[k * d + j] * y[k * d + j];
          out[at + j] += own * r[k] * means[k * d + j];
          if (isotropic) out[at + j] += value;
          else for (let i = 0; i < d; i++) out[at + i] += frames[k].basis[i * d + j] * value;
        }
      }
    }
    return out;
  }

  // D and Cov(x_0 | x_t = x) a at one point, into D and Ca.
  covarianceAlong(x, at, a, D, Ca) {
    const {law: {d, K, frames, means}, variance, r, y} = this;
    this.soften(this.see(x, at), null);
    this.m ??= new Float64Array(K * d);
    D.fill(0);
    Ca.fill(0);
    for (let k = 0; k < K; k++) {
      const {basis, values} = frames[k];
      for (let i = 0; i < d; i++) {
        let m = means[k * d + i];
        for (let j = 0; j < d; j++) m += basis[i * d + j] * this.gain[k * d + j] * y[k * d + j];
        this.m[k * d + i] = m;
        D[i] += r[k] * m;
      }
      for (let j = 0; j < d; j++) {
        let along = 0;
        for (let i = 0; i < d; i++) along += basis[i * d + j] * a[i];
        along *= r[k] * variance * values[j] * this.inverse[k * d + j];
        for (let i = 0; i < d; i++) Ca[i] += basis[i * d + j] * along;
      }
    }
    for (let k = 0; k < K; k++) {
      let apart = 0;
      for (let i = 0; i < d; i++) apart += (this.m[k * d + i] - D[i]) * a[i];
      for (let i = 0; i < d; i++) Ca[i] += r[k] * (this.m[k * d + i] - D[i]) * apart;
    }
  }

  // Cov(x_0 | x_t = x) at one point, (d·d): Σ_k r_k (C_k + (m_k - D)(m_k - D)ᵀ).
  covariance(x, at = 0, label = null) {
    const {law: {d, K, frames, means}, variance} = this, D = new Float64Array(d), total = new Float64Array(d * d);
    this.soften(this.see(x, at), label);
    const m = Array.from({length: K}, (_, k) => {
      const own = unrotated(frames[k].basis, frames[k].values.map((_, j) => this.gain[k * d + j] * this.y[k * d + j]), d);
      return own.map((value, i) => value + means[k * d + i]);
    });
    m.forEach((row, k) => row.forEach((value, i) => { D[i] += this.r[k] * value; }));
    m.forEach((row, k) => {
      const within = scaledFrame(frames[k], (value, j) => variance * value * this.inverse[k * d + j], d);
      for (let i = 0; i < d; i++) {
        for (let j = 0; j < d; j++) total[i * d + j] += this.r[k] * (within[i * d + j] + (row[i] - D[i]) * (row[j] - D[j]));
      }
    });
    return {D, covariance: total};
  }
}

function rotated(basis, x, d) {
  return Float64Array.from({length: d}, (_, j) => { let s = 0; for (let i = 0; i < d; i++) s += x[i] * basis[i * d + j]; return s; });
}

function unrotated(basis, y, d) {
  return Float64Array.from({length: d}, (_, i) => { let s = 0; for (let j = 0; j < d; j++) s += basis[i * d + j] * y[j]; return s; });
}

// Q diag(fn(value)) Qᵀ.
function scaledFrame({basis, values}, fn, d) {
  return matmul(basis.map((q, i) => q * fn(values[i % d], i % d)), transpose(basis, d, d), d, d, d);
}

function measured(law) {
  const {d, K} = law, mean = new Float64Array(d), total = new Float64Array(d * d);
  for (let k = 0; k < K; k++) law.mean(k).forEach((value, i) => { mean[i] += law.weights[k] * value; });
  for (let k = 0; k < K; k++) {
    const own = law.covariance(k), apart = law.mean(k).map((value, i) => value - mean[i]);
    for (let i = 0; i < d * d; i++) total[i] += law.weights[k] * (own[i] + apart[Math.floor(i / d)] * apart[i % d]);
  }
  return {mean, ...eigen(total, d)};
}

// Draws of N(α μ, α² C + σ² I) from standard normals, with the law's moments.
export function momentPrior({mean, basis, values}, eps, n, d, alpha, sigma) {
  const out = new Float64Array(n * d);
  for (let i = 0; i < n; i++) {
    const y = rotated(basis, eps.subarray(i * d, (i + 1) * d), d);
    const scaled = y.map((value, j) => Math.sqrt(alpha * alpha * values[j] + sigma * sigma) * value);
    out.set(unrotated(basis, scaled, d).map((value, j) => value + alpha * mean[j]), i * d);
  }
  return out;
}

// One component seen through y = A x + n: the factor L of S = A Σ Aᵀ + R, A Σ, y - A μ and log N(y; A μ, S).
function seenComponent(law, k, A, y, std) {
  const {d} = law, m = y.length, AC = matmul(A, law.covariance(k), m, d, d), S = matmul(AC, transpose(A, m, d), m, d, m);
  for (let i = 0; i < m; i++) S[i * m + i] += std * std;
  const L = cholesky(S, m), gap = matmul(A, law.mean(k), m, d, 1).map((value, i) => y[i] - value), white = forward(L, m, gap);
  let logEvidence = -0.5 * m * Math.log(2 * Math.PI);
  for (let i = 0; i < m; i++) logEvidence -= 0.5 * white[i] ** 2 + Math.log(L[i * m + i]);
  return {L, AC, gap, logEvidence};
}

// μ + G gap and (I - G A) Σ (I - G A)ᵀ + G R Gᵀ with the gain G = Σ Aᵀ S⁻¹.
function conditioned(law, k, A, std, {L, AC, gap}) {
  const {d} = law, m = gap.length, gain = new Float64Array(d * m), kept = identity(d);
  for (let i = 0; i < d; i++) gain.set(solve(L, m, Float64Array.from({length: m}, (_, j) => AC[j * d + i])), i * m);
  matmul(gain, A, d, m, d).forEach((value, i) => { kept[i] -= value; });
  const left = matmul(matmul(kept, law.covariance(k), d, d, d), transpose(kept, d, d), d, d, d);
  const right = matmul(gain, transpose(gain, d, m), d, m, d), total = left.map((value, i) => value + std * std * right[i]);
  const shift = matmul(gain, gap, d, m, 1), turned = transpose(total, d, d);
  return {mean: law.mean(k).map((value, i) => value + shift[i]), covariance: total.map((value, i) => (value + turned[i]) / 2)};
}
