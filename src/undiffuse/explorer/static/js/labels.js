// What every control is called, what it does in one line, and how it is shown.
import {GRIDS} from "./grid.js";
import {METHODS} from "./steps.js";
import {ANSWERS} from "./guide.js";
import {FAULTS} from "./museum.js";

const methodOptions = Object.entries(METHODS).map(([name, m]) => [
  name,
  m.label,
  m.sde ? "Reverse SDE" : "Probability-flow ODE",
]);

// key: [label, what it does, how it is shown, options]
export const LABELS = {
  law: ["Data distribution", "The distribution to sample, known exactly.", "law"],
  sde: ["Process", "How data become noise: x = α(t) x₀ + σ(t) ε.", "process"],
  method: ["Sampler", "How the reverse SDE or the ODE is integrated.", "choice", methodOptions],
  score: [
    "Score and drift",
    "Exact, or with a common mistake.",
    "choice",
    Object.entries(FAULTS).map(([name, [label]]) => [name, label, name === "exact" ? "" : "With a mistake"]),
  ],
  cells: [
    "Fokker–Planck cells",
    "Number of cells on which the density equation is solved, drawn over the exact distribution; 0: off.",
    "slider",
    10,
  ],
  eta: ["Noise η", "0: the ODE, 1: Anderson's reverse SDE; the distribution at every time stays the same.", "slider", 0.05],
  corr: ["Corrections per step", "Langevin steps after every prediction.", "slider", 1],
  r: ["Signal to noise r", "The size of a Langevin correction.", "slider", 0.01],
  n: ["Steps N", "Number of steps from noise to data.", "powers"],
  grid: [
    "Grid",
    "Times of the steps.",
    "choice",
    [["auto", "sampler default", ""], ...Object.entries(GRIDS).map(([k, v]) => [k, v, ""])],
  ],
  path: [
    "Same Brownian path for every N",
    "Finer steps refine one path with Brownian bridges instead of drawing new noise.",
    "flag",
  ],
  dir: [
    "Direction",
    "Sample from noise to data, or simulate data to noise.",
    "choice",
    [
      ["reverse", "Noise to data", ""],
      ["forward", "Data to noise", ""],
    ],
  ],
  p: ["Particles", "Number of simulated particles.", "log"],
  seed: ["Seed", "Determines every random number.", "seed"],
  show: [
    "Lines",
    "Trajectories of particles, or the exact quantiles, which are trajectories of the ODE.",
    "choice",
    [
      ["paths", "Paths", ""],
      ["lines", "Exact quantiles", ""],
      ["both", "Both", ""],
      ["none", "None", ""],
    ],
  ],
  scale: [
    "Units",
    "x unchanged, or divided by the standard deviation of x_t.",
    "choice",
    [
      ["auto", "as needed", ""],
      ["plain", "x", ""],
      ["unit", "unit variance", ""],
    ],
  ],
  gamma: ["Contrast γ", "The colour is (p/p_max)^γ.", "slider", 0.05],
  arrows: [
    "Arrows",
    "A vector field at the cursor's time.",
    "choice",
    [
      ["none", "None", ""],
      ["score", "Score ∇log p", ""],
      ["velocity", "Velocity of the ODE", ""],
      ["drift", "Drift of the reverse SDE", ""],
      ["denoiser", "To the denoised point", ""],
    ],
  ],
  trails: ["Trails", "The last part of every trajectory.", "flag"],
  edit: ["Edit the distribution", "Drag a mode, the ends of its axes and its weight, use the arrow keys on them, or type.", "modes"],
  axis: [
    "Axis",
    "Time, or log-SNR, in which all processes coincide.",
    "choice",
    [
      ["t", "time t", ""],
      ["log_snr", "log-SNR", ""],
    ],
  ],
  panes: ["Panes", "Two to four processes or dynamics side by side.", "panes"],
  solvers: ["Samplers", "Samplers to measure.", "ticks", methodOptions],
  measure: [
    "Error",
    "Error of each endpoint against a very fine run, or of the distribution of all endpoints.",
    "choice",
    [
      ["path", "of the endpoint", ""],
      ["law", "of the distribution", ""],
      ["weights", "of the modes' weights", ""],
    ],
  ],
  label: ["Class", "The requested class.", "classes"],
  w: ["Guidance w", "0: unconditional, 1: conditional, above 1: stronger.", "slider", 0.1],
  low: ["Guided from t/T ≥", "Guidance is active in this time interval only.", "slider", 0.01],
  high: ["Guided up to t/T ≤", "Guidance is active in this time interval only.", "slider", 0.01],
  other: ["Guided away from", "All data, or one class to avoid (a negative prompt).", "others"],
  angle: ["Angle of the line", "The direction a in which y = a·x + noise is measured, in degrees.", "slider", 1],
  y: ["Observation y", "The measured value.", "slider", 0.05],
  std: ["Its noise σ_y", "Standard deviation of the measurement noise.", "slider", 0.02],
  zeta: ["DPS strength ζ", "Step size of DPS.", "slider", 0.1],
  answers: [
    "Methods",
    "Approximations of p(x | y), next to the exact posterior.",
    "ticks",
    Object.entries(ANSWERS).map(([k, v]) => [k, v, ""]),
  ],
  h: [
    "Bandwidth of the training digits",
    "0: one Gaussian per class. Above 0: one component of this standard deviation per training digit, a photocopier.",
    "slider",
    0.02,
  ],
  near: ["Nearest training digit", "Next to every sampled digit, the nearest real one.", "flag"],
  a: ["Point a", "Its trajectory to noise and its likelihood are shown.", "point"],
  b: ["Point b", "The other end of the interpolation between latents.", "point"],
  dt: ["Step dt / T", "One step of the forward process, from exact samples.", "slider", 0.001],
  minus: ["Add g s dt", "Remove the mean of the increment that the score predicts, −g s dt.", "flag"],
  mode: [
    "Task",
    "Sample digits, or complete painted ones.",
    "choice",
    [
      ["draw", "Sample digits", ""],
      ["complete", "Complete a digit", ""],
    ],
  ],
};
