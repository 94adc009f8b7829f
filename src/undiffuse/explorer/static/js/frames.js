// Coordinates in an orthonormal basis, a matrix whose columns are its vectors.
import {matmul, transpose} from "./linalg.js";

export function rotated(basis, x, d) {
  return Float64Array.from({length: d}, (_, j) => {
    let s = 0;
    for (let i = 0; i < d; i++) s += x[i] * basis[i * d + j];
    return s;
  });
}

export function unrotated(basis, y, d) {
  return Float64Array.from({length: d}, (_, i) => {
    let s = 0;
    for (let j = 0; j < d; j++) s += basis[i * d + j] * y[j];
    return s;
  });
}

// Q diag(fn(value)) Qᵀ.
export function scaledFrame({basis, values}, fn, d) {
  return matmul(
    basis.map((q, i) => q * fn(values[i % d], i % d)),
    transpose(basis, d, d),
    d,
    d,
    d,
  );
}
