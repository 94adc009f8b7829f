// Time grids, as in grid.py: where the steps of a sampler stand, from t_start down to t_end.

const linspace = (n) => Array.from({length: n}, (_, i) => (n === 1 ? 1 : i / (n - 1)));

const IN_TIME = {
  time: (a, b, u) => a + (b - a) * u,
  time_quadratic: (a, b, u) => (Math.sqrt(a) + (Math.sqrt(b) - Math.sqrt(a)) * u) ** 2,
};

const IN_LOG_SNR = {
  log_snr: (a, b, u) => a + (b - a) * u,
  karras: (a, b, u, rho = 7) => {
    const high = Math.exp(-a / rho),
      low = Math.exp(-b / rho);
    return -rho * Math.log(high + (low - high) * u);
  },
  cosine_log_snr: (a, b, u) => {
    const high = Math.atan(Math.exp(-a)),
      low = Math.atan(Math.exp(-b));
    return -Math.log(Math.tan(high + (low - high) * u));
  },
};

export const GRIDS = {
  time: "even in t",
  time_quadratic: "even in √t",
  log_snr: "even in log-SNR",
  karras: "Karras, ρ = 7",
  cosine_log_snr: "even in arctan σ/α",
};

export function timeGrid(sde, steps, grid, end, deviation, start = sde.T) {
  const times = IN_TIME[grid]
    ? linspace(steps + 1).map((u) => IN_TIME[grid](start, end, u))
    : inLogSnr(sde, steps, IN_LOG_SNR[grid], start, end, deviation);
  times[0] = start;
  times[steps] = end;
  return times;
}

// With one step in front where the noise is endless at the start.
function inLogSnr(sde, steps, spacing, start, end, deviation) {
  const high = sde.logSnr(start),
    low = sde.logSnr(end);
  if (high >= -Math.log(1e6 * deviation)) return linspace(steps + 1).map((u) => sde.timeOf(spacing(high, low, u)));
  const inner = Math.min(-Math.log(160 * deviation), low - 1e-3);
  return [start, ...linspace(steps).map((u) => sde.timeOf(spacing(inner, low, u)))];
}
