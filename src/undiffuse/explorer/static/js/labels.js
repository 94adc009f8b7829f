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
  law: ["Law of the data", "The distribution that is to be sampled, known exactly.", "law"],
  sde: ["Process", "How data are turned into noise: x = α(t) x₀ + σ(t) ε.", "process"],
  method: ["Sampler", "How the reverse SDE or the ODE is integrated.", "choice", methodOptions],
  score: [
    "Score and drift",
    "As they are, or with a mistake that is easily made.",
    "choice",
    Object.entries(FAULTS).map(([name, [label]]) => [name, label, name === "exact" ? "" : "With a mistake"]),
  ],
  cells: [
    "Fokker–Planck cells",
    "Solve the equation of the density on so many cells and lay it over the exact law; 0: do not.",
    "slider",
    10,
  ],
  eta: ["Noise η", "0 is the ODE, 1 Anderson's reverse SDE; the law at every time stays the same.", "slider", 0.05],
  corr: ["Corrections a step", "Langevin steps after every prediction.", "slider", 1],
  r: ["Signal to noise r", "The size of a Langevin correction.", "slider", 0.01],
  n: ["Steps N", "How many steps lead from noise to data.", "powers"],
  grid: [
    "Grid",
    "Where the steps stand.",
    "choice",
    [["auto", "the sampler's own", ""], ...Object.entries(GRIDS).map(([k, v]) => [k, v, ""])],
  ],
  path: [
    "Same Brownian path for every N",
    "Finer steps refine one path by Brownian bridges instead of drawing a new one.",
    "flag",
  ],
  dir: [
    "Direction",
    "Sample from noise to data, or watch data dissolve.",
    "choice",
    [
      ["reverse", "Noise to data", ""],
      ["forward", "Data to noise", ""],
    ],
  ],
  p: ["Particles", "How many are simulated.", "log"],
  seed: ["Seed", "Every random number is a function of it.", "seed"],
  show: [
    "Lines",
    "Paths of particles, or the exact quantiles, which are paths of the ODE.",
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
    "x as it is, or divided by the deviation of x_t.",
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
    "A vector field at the time of the cursor.",
    "choice",
    [
      ["none", "None", ""],
      ["score", "Score ∇log p", ""],
      ["velocity", "Velocity of the ODE", ""],
      ["drift", "Drift of the reverse SDE", ""],
      ["denoiser", "To the denoised point", ""],
    ],
  ],
  trails: ["Trails", "The last part of every path.", "flag"],
  edit: ["Edit the law", "Drag a mode, the ends of its axes and its weight, use the arrow keys on them, or type.", "modes"],
  axis: [
    "Axis",
    "Time, or log-SNR, in which all processes are one.",
    "choice",
    [
      ["t", "time t", ""],
      ["log_snr", "log-SNR", ""],
    ],
  ],
  panes: ["Panes", "Two to four processes or dynamics side by side.", "panes"],
  solvers: ["Samplers", "What is measured.", "ticks", methodOptions],
  measure: [
    "Error",
    "Of the end of each path against a very fine run, or of the law of all ends.",
    "choice",
    [
      ["path", "of the path's end", ""],
      ["law", "of the law", ""],
      ["weights", "of the modes' weights", ""],
    ],
  ],
  label: ["Class", "The class that is asked for.", "classes"],
  w: ["Guidance w", "0: no condition, 1: the class, more: beyond it.", "slider", 0.1],
  low: ["Guided from t/T ≥", "Guidance is on in this interval of time only.", "slider", 0.01],
  high: ["Guided up to t/T ≤", "Guidance is on in this interval of time only.", "slider", 0.01],
  other: ["Guided away from", "All data, or one class to repel (a negative prompt).", "others"],
  angle: ["Angle of the line", "The direction a in which y = a·x + noise is measured, in degrees.", "slider", 1],
  y: ["Observation y", "What was measured.", "slider", 0.05],
  std: ["Its noise σ_y", "The deviation of the measurement.", "slider", 0.02],
  zeta: ["DPS strength ζ", "How hard DPS pulls.", "slider", 0.1],
  answers: [
    "Methods",
    "Approximations of p(x | y) beside the exact one.",
    "ticks",
    Object.entries(ANSWERS).map(([k, v]) => [k, v, ""]),
  ],
  h: [
    "Bandwidth of the training digits",
    "0: one Gaussian a class. More: one component of this deviation for every training digit, a photocopier.",
    "slider",
    0.02,
  ],
  near: ["Nearest training digit", "Beside every drawn digit the real one that is nearest to it.", "flag"],
  a: ["Point a", "Its way to the noise and its likelihood are followed.", "point"],
  b: ["Point b", "The other end of what lies between the latents.", "point"],
  dt: ["Step dt / T", "One step of the forward process, from exact draws.", "slider", 0.001],
  minus: ["Add g s dt", "Take away what the score says of the increment: its mean −g s dt.", "flag"],
  mode: [
    "Task",
    "Draw digits, or complete what is painted.",
    "choice",
    [
      ["draw", "Draw digits", ""],
      ["complete", "Complete a digit", ""],
    ],
  ],
};
