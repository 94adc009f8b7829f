// The rows of the exponential family, as in steps/kernel.py and steps/rows.py: data prediction, any order, any ℓ = η.

const ORDER = 24;
const [NODES, WEIGHTS] = gaussLegendre(ORDER);

// Nodes and weights of Gauss and Legendre's quadrature on [-1, 1], by Newton's iteration.
function gaussLegendre(n) {
  const nodes = [],
    weights = [];
  for (let i = 0; i < n; i++) {
    let x = -Math.cos((Math.PI * (i + 0.75)) / (n + 0.5)),
      slope = 0;
    for (let k = 0; k < 8; k++) {
      let before = 1,
        here = x;
      for (let j = 2; j <= n; j++) [before, here] = [here, ((2 * j - 1) * x * here - (j - 1) * before) / j];
      slope = (n * (x * here - before)) / (x * x - 1);
      x -= here / slope;
    }
    nodes.push(x);
    weights.push(2 / ((1 - x * x) * slope * slope));
  }
  return [nodes, weights];
}

// α' c ∫₀ʰ (σ̂'/σ̂_u)ᶜ uᵏ du for k < order, c = 1 + η².
function moments(t, s, order, eta) {
  const c = 1 + eta * eta,
    h = s.logSnr - t.logSnr,
    last2 = (s.sigma / s.alpha) ** 2;
  const inside = NODES.map((node, i) => {
    const u = (h * (node + 1)) / 2;
    return [u, (last2 / Math.exp(-2 * (t.logSnr + u))) ** (c / 2) * WEIGHTS[i]];
  });
  return Array.from(
    {length: order},
    (_, k) => ((s.alpha * c * h) / 2) * inside.reduce((sum, [u, weight]) => sum + weight * u ** k, 0),
  );
}

// The weights of values at `offsets` whose interpolating polynomial is integrated exactly.
function vandermonde(right, offsets) {
  const m = right.length,
    rows = right.map((value, k) => [...offsets.map((o) => o ** k), value]);
  for (let p = 0; p < m; p++) {
    const best = rows.slice(p).reduce((b, row, i) => (Math.abs(row[p]) > Math.abs(rows[b][p]) ? p + i : b), p);
    [rows[p], rows[best]] = [rows[best], rows[p]];
    for (let i = p + 1; i < m; i++) {
      const factor = rows[i][p] / rows[p][p];
      for (let j = p; j <= m; j++) rows[i][j] -= factor * rows[p][j];
    }
  }
  const x = new Array(m);
  for (let i = m - 1; i >= 0; i--) {
    x[i] = (rows[i][m] - x.slice(i + 1).reduce((sum, value, j) => sum + rows[i][i + 1 + j] * value, 0)) / rows[i][i];
  }
  return x;
}

// One step x' = carry·x + Σ weights_j·D_j + spread·ξ. rule "midpoint": I_1 = h I_0/2, as published for two values.
export function row(t, s, offsets, eta = 0, rule = "exact") {
  if (t.alpha === 0) return {carry: eta ? 0 : s.sigma / t.sigma, weights: [s.alpha], spread: eta ? s.sigma : 0};
  const shrink = eta ? (((s.sigma * t.alpha) / (t.sigma * s.alpha)) ** 2) ** ((eta * eta) / 2) : 1;
  const I = moments(t, s, offsets.length, eta);
  if (rule === "midpoint" && I.length === 2) I[1] = (I[0] * (s.logSnr - t.logSnr)) / 2;
  return {
    carry: (s.sigma / t.sigma) * shrink,
    weights: vandermonde(I, offsets),
    spread: s.sigma * Math.sqrt(Math.max(0, 1 - shrink * shrink)),
  };
}

// λ_{i-j} - λ_i of the values in use, newest first.
export function offsetsOf(nodes, i, order) {
  const found = [];
  for (let j = 0; j < Math.min(order, i + 1); j++) {
    if (Number.isFinite(nodes[i - j].logSnr)) found.push(nodes[i - j].logSnr - nodes[i].logSnr);
  }
  return found.length ? found : [0];
}
