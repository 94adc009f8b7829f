// Where views that follow a point begin.

// The two points of a state: its own, or the means of the component in the middle of the law and of its last one.
export function pointsOf({a, b}, law) {
  const own = (text, k) => (text ? text.split(",").map(Number) : [...law.mean(k)].map((v) => Number(v.toFixed(3))));
  return [own(a, Math.max(0, (law.K >> 1) - 1)), own(b, law.K - 1)];
}

// The step of the forward process that ends at the state's time: from s, of such a length.
export function stepOf({t, dt}, T) {
  const length = dt * T;
  return {length, s: Math.max(t * T - length, 1e-3 * T)};
}
