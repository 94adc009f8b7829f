// The law of x_t seen from a point: all that densities, scores and denoisers have in common.
import {scaledFrame, unrotated} from "./frames.js";

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
        this.gain[k * d + j] = (alpha * value) / spread;
        sum += Math.log(2 * Math.PI * spread);
      });
      this.logNorm[k] = Math.log(law.weights[k]) - 0.5 * sum;
    }
    this.y = new Float64Array(K * d);
    this.r = new Float64Array(K);
  }

  // Fills r with log w_k N_k(x) and y with the coordinates of x - α μ_k in the eigenbases; returns the largest log.
  see(x, at) {
    const {
      law: {d, K, frames, centres, isotropic, means},
      alpha,
      inverse,
      y,
      r,
    } = this;
    let top = -Infinity;
    for (let k = 0; k < K; k++) {
      const basis = frames[k].basis,
        centre = centres[k];
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
    const {
      r,
      law: {labels, K},
    } = this;
    let best = top,
      total = 0;
    if (label !== null) {
      best = -Infinity;
      for (let k = 0; k < K; k++)
        if (labels[k] !== label) r[k] = -Infinity;
        else if (r[k] > best) best = r[k];
    }
    for (let k = 0; k < K; k++) total += r[k] = Math.exp(r[k] - best);
    for (let k = 0; k < K; k++) r[k] /= total;
    return best + Math.log(total);
  }

  logProb(x, at = 0, label = null) {
    if (label !== null) return this.soften(this.see(x, at), label);
    const top = this.law.d === 2 ? this.logsInPlane(x[at], x[at + 1]) : this.see(x, at),
      {r} = this;
    let total = 0;
    for (let k = 0; k < r.length; k++) if (r[k] > top - 40) total += Math.exp(r[k] - top);
    return top + Math.log(total);
  }

  // Like `see`, for the density in the plane alone: r from the quadratic forms of the components.
  logsInPlane(x, y) {
    const {
        law: {K},
        logNorm,
        r,
      } = this,
      forms = (this.forms ??= this.quadraticForms());
    let top = -Infinity;
    for (let k = 0, f = 0; k < K; k++, f += 5) {
      const dx = x - forms[f],
        dy = y - forms[f + 1];
      r[k] = logNorm[k] - 0.5 * (forms[f + 2] * dx * dx + 2 * forms[f + 3] * dx * dy + forms[f + 4] * dy * dy);
      if (r[k] > top) top = r[k];
    }
    return top;
  }

  // (α μ, the inverse covariance) of every component in the plane, five numbers each.
  quadraticForms() {
    const {
      law: {K, frames, means},
      alpha,
      inverse,
    } = this;
    return Float64Array.from({length: 5 * K}, (_, i) => {
      const k = Math.floor(i / 5),
        q = frames[k].basis,
        a = inverse[2 * k],
        b = inverse[2 * k + 1];
      return [
        alpha * means[2 * k],
        alpha * means[2 * k + 1],
        a * q[0] * q[0] + b * q[1] * q[1],
        a * q[0] * q[2] + b * q[1] * q[3],
        a * q[2] * q[2] + b * q[3] * q[3],
      ][i % 5];
    });
  }

  responsibilities(x, at = 0, label = null) {
    this.soften(this.see(x, at), label);
    return Float64Array.from(this.r);
  }

  // ∇ log p_t at n points.
  score(x, n, label = null) {
    return this.sum(x, n, label, this.inverse, -1, 0);
  }

  // E[x_0 | x_t] at n points.
  denoise(x, n, label = null) {
    return this.sum(x, n, label, this.gain, 1, 1);
  }

  // Σ_k r_k (own μ_k + sign Q_k (coefficient · y_k)) at n points.
  sum(x, n, label, coefficient, sign, own) {
    const {
        law: {d, K, frames, means, isotropic},
        y,
        r,
      } = this,
      out = new Float64Array(n * d);
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
    const {
      law: {d, K, frames, means},
      variance,
      r,
      y,
    } = this;
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
    const {
        law: {d, K, frames, means},
        variance,
      } = this,
      D = new Float64Array(d),
      total = new Float64Array(d * d);
    this.soften(this.see(x, at), label);
    const m = Array.from({length: K}, (_, k) => {
      const own = unrotated(
        frames[k].basis,
        frames[k].values.map((_, j) => this.gain[k * d + j] * this.y[k * d + j]),
        d,
      );
      return own.map((value, i) => value + means[k * d + i]);
    });
    m.forEach((row, k) =>
      row.forEach((value, i) => {
        D[i] += this.r[k] * value;
      }),
    );
    m.forEach((row, k) => {
      const within = scaledFrame(frames[k], (value, j) => variance * value * this.inverse[k * d + j], d);
      for (let i = 0; i < d; i++) {
        for (let j = 0; j < d; j++)
          total[i * d + j] += this.r[k] * (within[i * d + j] + (row[i] - D[i]) * (row[j] - D[j]));
      }
    });
    return {D, covariance: total};
  }
}
