// log p along the probability-flow ODE: d log p_t(x_t)/dt = −∇·v, exactly or with random probes.
import {PURPOSE, normal} from "./noise.js";

// ∇·v = d σ'/σ + (α' − α σ'/σ) ∇·D at n points, where ∇·D = α tr Cov(x_0 | x_t)/σ²; with probes (n, d), vᵀ ∇D v for it.
export function divergences(model, x, n, t, probes = null) {
  const {sde, law} = model,
    {d} = law,
    alpha = sde.alpha(t),
    variance = sde.variance(t),
    lens = law.at(alpha, variance),
    [dalpha, dsigma] = sde.rates(t),
    rate = dsigma / sde.sigma(t);
  return Float64Array.from({length: n}, (_, i) => {
    const {covariance} = lens.covariance(x, i * d);
    let sum = 0;
    for (let a = 0; a < d; a++)
      for (let b = 0; b < d; b++)
        sum += covariance[a * d + b] * (probes ? probes[i * d + a] * probes[i * d + b] : Number(a === b));
    return d * rate + (dalpha - alpha * rate) * ((alpha * sum) / variance);
  });
}

// Random probes, E v vᵀ = 1, as in Hutchinson's estimate of a trace.
export const probesOf = (seed, n, d) => normal(seed, PURPOSE.PROBE, 0, 0, n, d);

// log p at every time of a path of n points, from log p at its end; `slopes` are the divergences at every time.
export function logsAlong(times, slopes, last) {
  const logs = times.map(() => Float64Array.from(last));
  for (let i = times.length - 2; i >= 0; i--) {
    const half = (times[i + 1] - times[i]) / 2;
    logs[i] = logs[i + 1].map((value, j) => value + half * (slopes[i][j] + slopes[i + 1][j]));
  }
  return logs;
}
