// The Fokker-Planck equation of one number, solved on cells. In y = x/v with v² = α² s² + σ², and in the time
// τ = log(v/α), that of every Gaussian process is ∂q/∂τ = ∂(y q + ∂q/∂y)/∂y.
// Fluxes by Chang and Cooper (1970), who keep the mass and the law of rest; time by TR-BDF2 (Bank et al., 1985).
import {cdf} from "./metrics.js";

const REACH = 6,
  STEP = 0.02,
  MOST_STEPS = 16,
  KAPPA = 1 - Math.SQRT1_2;

const scaleOf = (sde, s, t) => Math.hypot(sde.alpha(t) * s, sde.sigma(t));
const clockOf = (sde, s, t) => Math.log(scaleOf(sde, s, t) / Math.max(1e-6, sde.alpha(t)));

// z/(e^z − 1)
const bernoulli = (z) => (Math.abs(z) < 1e-8 ? 1 - z / 2 : z / Math.expm1(z));

// The masses of `cells` equal cells of y in [−reach, reach] at all times, which rise; the first are those of the law.
export function solved(law, sde, times, cells) {
  const s = law.deviation,
    reach = Math.max(REACH, ...law.frames.map(({values}, k) => (Math.abs(law.means[k]) + REACH * Math.sqrt(values[0])) / s)),
    matrix = rates(reach, cells),
    found = {s, reach, cells, times, masses: []};
  let q = exactMasses(law, sde, 0, found),
    clock = clockOf(sde, s, 0);
  for (const t of times) {
    const now = clockOf(sde, s, t),
      parts = Math.min(MOST_STEPS, Math.max(1, Math.ceil((now - clock) / STEP)));
    for (let i = 0; i < parts; i++) q = advanced(matrix, q, (now - clock) / parts);
    found.masses.push(q);
    clock = now;
  }
  return found;
}

// What the law puts into every cell at a time.
export function exactMasses(law, sde, t, {s, reach, cells}) {
  const v = scaleOf(sde, s, t),
    below = Float64Array.from({length: cells + 1}, (_, j) =>
      cdf(law, v * reach * ((2 * j) / cells - 1), sde.alpha(t), sde.variance(t)),
    );
  return Float64Array.from({length: cells}, (_, j) => below[j + 1] - below[j]);
}

// The density of x at the time of number i, straight between the middles of cells.
export function densityOf({s, reach, cells, times, masses}, sde, i) {
  const v = scaleOf(sde, s, times[i]),
    width = (2 * reach) / cells,
    q = masses[i];
  return (x) => {
    const place = (x / v + reach) / width - 0.5,
      j = Math.floor(place),
      u = place - j;
    return ((1 - u) * (q[j] ?? 0) + u * (q[j + 1] ?? 0)) / (width * v);
  };
}

// What flows into a cell from below, stays and flows in from above: dq_j/dτ = low q_{j−1} + mid q_j + up q_{j+1}.
function rates(reach, cells) {
  const width = (2 * reach) / cells,
    low = new Float64Array(cells),
    mid = new Float64Array(cells),
    up = new Float64Array(cells);
  for (let j = 0; j + 1 < cells; j++) {
    const w = (-reach + (j + 1) * width) * width,
      out = bernoulli(w) / width ** 2,
      back = bernoulli(-w) / width ** 2;
    low[j + 1] = out;
    mid[j] -= out;
    up[j] = back;
    mid[j + 1] -= back;
  }
  return {low, mid, up};
}

// One step: half of it by the trapezoidal rule, the rest by a backward formula with the same matrix.
function advanced(matrix, q, h) {
  const gamma = 2 * KAPPA,
    moved = flowed(matrix, q),
    middle = solvedFor(
      matrix,
      q.map((value, j) => value + KAPPA * h * moved[j]),
      KAPPA * h,
    ),
    share = 1 / (gamma * (2 - gamma));
  return solvedFor(
    matrix,
    q.map((value, j) => share * middle[j] - (share - 1) * value),
    KAPPA * h,
  );
}

const flowed = ({low, mid, up}, q) =>
  q.map((value, j) => mid[j] * value + (j ? low[j] * q[j - 1] : 0) + (j + 1 < q.length ? up[j] * q[j + 1] : 0));

// The solution x of (1 − c A) x = b, by elimination.
function solvedFor({low, mid, up}, b, c) {
  const n = b.length,
    ratio = new Float64Array(n),
    x = new Float64Array(n);
  for (let j = 0; j < n; j++) {
    const pivot = 1 - c * mid[j] + (j ? c * low[j] * ratio[j - 1] : 0);
    ratio[j] = (-c * up[j]) / pivot;
    x[j] = (b[j] + (j ? c * low[j] * x[j - 1] : 0)) / pivot;
  }
  for (let j = n - 2; j >= 0; j--) x[j] -= ratio[j] * x[j + 1];
  return x;
}
