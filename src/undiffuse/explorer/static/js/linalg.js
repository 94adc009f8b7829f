// Small symmetric matrices, row by row in Float64Arrays: eigenvectors, Cholesky factors, solutions.

// Eigenvalues and eigenvectors (columns of basis) by cyclic Jacobi rotations, every vector turned upright.
export function eigen(matrix, d) {
  const a = Float64Array.from(matrix),
    basis = identity(d);
  if (a.every((value, i) => (i % (d + 1) === 0 ? value === a[0] : value === 0))) {
    return {basis, values: Float64Array.from({length: d}, () => Math.max(0, a[0]))};
  }
  for (let sweep = 0; sweep < 60 && offDiagonal(a, d) > 0; sweep++) {
    for (let p = 0; p < d; p++) for (let q = p + 1; q < d; q++) rotate(a, basis, d, p, q);
  }
  return sorted(a, basis, d);
}

export function identity(d) {
  return Float64Array.from({length: d * d}, (_, i) => (i % (d + 1) === 0 ? 1 : 0));
}

// The sum of squares off the diagonal, 0 once it is lost in rounding.
function offDiagonal(a, d) {
  let off = 0,
    on = 0;
  for (let i = 0; i < d; i++)
    for (let j = 0; j < d; j++)
      if (i === j) on += a[i * d + j] ** 2;
      else off += a[i * d + j] ** 2;
  return off <= 1e-31 * on ? 0 : off;
}

function rotate(a, basis, d, p, q) {
  const apq = a[p * d + q];
  if (apq * apq <= 1e-34 * Math.abs(a[p * d + p] * a[q * d + q])) return;
  const theta = (a[q * d + q] - a[p * d + p]) / (2 * apq);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1)),
    c = 1 / Math.hypot(t, 1),
    s = t * c;
  for (let k = 0; k < d; k++) turn(a, k * d + p, k * d + q, c, s);
  for (let k = 0; k < d; k++) turn(a, p * d + k, q * d + k, c, s);
  for (let k = 0; k < d; k++) turn(basis, k * d + p, k * d + q, c, s);
}

function turn(a, i, j, c, s) {
  const u = a[i],
    v = a[j];
  a[i] = c * u - s * v;
  a[j] = s * u + c * v;
}

// Values rising; each vector's product with (1, 1/2, 1/3, ...) is positive, as in exact.py.
function sorted(a, basis, d) {
  const order = [...Array(d).keys()].sort((i, j) => a[i * d + i] - a[j * d + j]),
    out = new Float64Array(d * d);
  order.forEach((from, to) => {
    let lean = 0;
    for (let k = 0; k < d; k++) lean += basis[k * d + from] / (k + 1);
    for (let k = 0; k < d; k++) out[k * d + to] = (lean < 0 ? -1 : 1) * basis[k * d + from];
  });
  return {basis: out, values: Float64Array.from(order, (i) => Math.max(0, a[i * d + i]))};
}

// The lower factor L of a = L Lᵀ.
export function cholesky(a, m) {
  const L = new Float64Array(m * m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * m + j];
      for (let k = 0; k < j; k++) sum -= L[i * m + k] * L[j * m + k];
      L[i * m + j] = i === j ? Math.sqrt(sum) : sum / L[j * m + j];
    }
  }
  return L;
}

// The solution of L Lᵀ x = b.
export function solve(L, m, b) {
  const x = forward(L, m, b);
  for (let i = m - 1; i >= 0; i--) {
    for (let k = i + 1; k < m; k++) x[i] -= L[k * m + i] * x[k];
    x[i] /= L[i * m + i];
  }
  return x;
}

// The solution of L x = b.
export function forward(L, m, b) {
  const x = Float64Array.from(b);
  for (let i = 0; i < m; i++) {
    for (let k = 0; k < i; k++) x[i] -= L[i * m + k] * x[k];
    x[i] /= L[i * m + i];
  }
  return x;
}

// The product of (n, m) and (m, p).
export function matmul(a, b, n, m, p) {
  const out = new Float64Array(n * p);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < m; k++) {
      const value = a[i * m + k];
      if (value !== 0) for (let j = 0; j < p; j++) out[i * p + j] += value * b[k * p + j];
    }
  }
  return out;
}

export function transpose(a, n, m) {
  const out = new Float64Array(n * m);
  for (let i = 0; i < n; i++) for (let j = 0; j < m; j++) out[j * n + i] = a[i * m + j];
  return out;
}
