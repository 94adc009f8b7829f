// Scores with one error each: what a sampler makes of a mistake that is easily made.

// name: [label, what one sees, D' from {x, D, alpha, f, g2, variance}, the same in Python]
export const FAULTS = {
  exact: ["exact", ""],
  sign: [
    "wrong sign of the score",
    "The score has the wrong sign: trajectories move away from the data.",
    ({x, D, alpha}) => (2 * x) / alpha - D,
    "2 * x / sde.alpha(t) - D",
  ],
  drift: [
    "wrong sign of the drift",
    "f has the wrong sign in the reverse SDE: the score pulls in the right direction, but the trajectories end too close together.",
    ({x, D, alpha, f, g2, variance}) => D + ((2 * f * variance) / (g2 * alpha)) * x,
    "D + 2 * sde.f(t) * sde.variance(t) / (sde.g2(t) * sde.alpha(t)) * x",
  ],
  both: [
    "wrong sign of both",
    "Score and drift have the wrong sign: two errors do not cancel.",
    ({x, D, alpha, f, g2, variance}) => (2 * x) / alpha - D + ((2 * f * variance) / (g2 * alpha)) * x,
    "2 * x / sde.alpha(t) - D + 2 * sde.f(t) * sde.variance(t) / (sde.g2(t) * sde.alpha(t)) * x",
  ],
  half: [
    "score half as long",
    "The score is half as long as it should be: not all noise is removed, and the particles spread too far.",
    ({x, D, alpha}) => (D + x / alpha) / 2,
    "(D + x / sde.alpha(t)) / 2",
  ],
  twice: [
    "score twice as long",
    "The score is twice as long as it should be: the particles concentrate on the modes.",
    ({x, D, alpha}) => 2 * D - x / alpha,
    "2 * D - x / sde.alpha(t)",
  ],
};

// A model whose denoiser has the fault; the drift's is that of the reverse SDE with η = 1.
export function broken(model, name = "exact") {
  const make = FAULTS[name][2];
  if (!make) return model;
  const {sde} = model;
  const denoise = (x, n, t) => {
    const at = {alpha: sde.alpha(t), f: sde.f(t), g2: sde.g2(t), variance: sde.variance(t)};
    const D = model.denoise(x, n, t);
    return at.alpha ? D.map((value, j) => make({...at, x: x[j], D: value})) : D;
  };
  return {...model, denoise};
}
