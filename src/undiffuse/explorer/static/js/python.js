// Copy as Python: the scene as a few lines of the library that reproduce the page's particles.
import {FAULTS} from "./museum.js";
import {METHODS} from "./steps.js";
import {PROCESSES, parseProcess} from "./processes.js";
import {parseLaw} from "./laws.js";
import {gridOf, optionsOf} from "./scene.js";
import {pointsOf, stepOf} from "./points.js";

const num = (v) => (Number.isInteger(v) ? v.toFixed(1) : String(v));
const list = (values) => `[${[...values].map((v) => (typeof v === "object" ? list(v) : num(v))).join(", ")}]`;

// Lines that make `data`.
function lawLines(text) {
  const [name, width] = text.split(":");
  if (text.startsWith("mix:")) return mixtureLines(parseLaw(text));
  if (!width) return ["from undiffuse.explorer import mixture", "", `data = mixture("${name}")`];
  return [
    "from undiffuse.explorer import mixture",
    "",
    `points = mixture("${name}")`,
    `data = ud.Mixture(points.weights, points.means, ${width} ** 2, labels=points.labels)`,
  ];
}

function mixtureLines(law) {
  const {d, K} = law,
    rows = (values) => Array.from({length: K}, (_, k) => [...values.subarray(k * d, (k + 1) * d)]);
  const matrices = Array.from({length: K}, (_, k) =>
    Array.from({length: d}, (_, i) => [...law.covariance(k).subarray(i * d, (i + 1) * d)]),
  );
  return [
    "",
    `data = ud.Mixture(${list(law.weights)}, ${list(rows(law.means))},`,
    `                  ${list(matrices)}, labels=range(${K}))`,
  ];
}

function processLine(text) {
  const {name, args} = parseProcess(text),
    [, params, kind] = PROCESSES[name];
  return `sde = ${kind}(${params.map(([param], i) => `${param}=${num(args[i])}`).join(", ")})`;
}

const importLine = (text) => `from undiffuse.processes import ${PROCESSES[parseProcess(text).name][2]}`;

function optionText(state, method, eta) {
  const found = Object.entries(optionsOf(state, method, eta)).map(
    ([k, v]) => `"${k}": ${k === "corrections" ? v : num(v)}`,
  );
  return found.length ? `, options={${found.join(", ")}}` : "";
}

function sampleLine(
  state,
  {n = state.p, method = state.method, eta = state.eta, model = "model", steps = state.n, more = ""} = {},
) {
  const grid = gridOf(state, method),
    path = state.path ? ', noise="path"' : "";
  return [
    `out = ud.sample(${model}, n=${n}, method="${method}", steps=${steps}, grid="${grid}",`,
    `                seed=${state.seed}${path}${optionText(state, method, eta)}${more})`,
  ];
}

const WRAPPER = "from undiffuse.model import Wrapper";

// The class that gives a model's denoiser a fault.
const FAULTY = [
  "",
  "",
  "class Faulty(Wrapper):",
  "    def __init__(self, inner, fault):",
  "        super().__init__(inner)",
  "        self.fault = fault",
  "",
  "    def denoise(self, x, t):",
  "        D = self.inner.denoise(x, t)",
  "        return self.fault(x, D, t, self.sde) if self.sde.alpha(t) > 0 else D",
  "",
  "",
];

const faultText = (score) => `lambda x, D, t, sde: ${FAULTS[score][3]}`;

const start = (state, imports = []) => [
  "import undiffuse as ud",
  ...imports,
  importLine(state.sde),
  ...lawLines(state.law),
  processLine(state.sde),
];

function plainLines(state) {
  if (state.dir === "forward") {
    return [
      "import undiffuse as ud",
      "from undiffuse.sde import simulate",
      importLine(state.sde),
      ...lawLines(state.law),
      processLine(state.sde),
      `x = simulate(sde, data.sample(${state.p}, seed=${state.seed}), steps=${state.n}, seed=${state.seed})`,
    ];
  }
  const sampled = [...sampleLine(state, {model: "data.denoiser(sde)"}), "x = out.x"];
  if (state.score === "exact") return [...start(state), ...sampled];
  return [
    ...start(state, [WRAPPER]),
    ...FAULTY,
    `model = Faulty(data.denoiser(sde), ${faultText(state.score)})`,
    ...sampleLine(state),
    "x = out.x",
  ];
}

function compareLines(state) {
  const panes = state.panes.split("|").map((pane) => pane.split("~")),
    names = [...new Set(panes.map(([sde]) => PROCESSES[sde.split(":")[0]][2]))];
  const faulty = panes.some(([, , , score = "exact"]) => score !== "exact");
  const calls = panes.map(([sde, method = state.method, eta = state.eta, score = "exact"]) => {
    const exact = `data.denoiser(${processLine(sde).replace("sde = ", "")})`,
      made = score === "exact" ? exact : `Faulty(${exact}, ${faultText(score)})`,
      grid = gridOf(state, method);
    return (
      `    ud.sample(${made}, n=${state.p}, method="${method}", steps=${state.n},\n` +
      `              grid="${grid}", seed=${state.seed}${state.path ? ', noise="path"' : ""}${optionText(state, method, Number(eta))}).x,`
    );
  });
  return [
    "import undiffuse as ud",
    ...(faulty ? [WRAPPER] : []),
    `from undiffuse.processes import ${names.join(", ")}`,
    ...lawLines(state.law),
    ...(faulty ? FAULTY : []),
    "xs = [",
    ...calls,
    "]",
    "x = xs[0]",
  ];
}

// The class that guides the model that it is made of.
function guidedClass(state) {
  const base = state.other === "all" ? "self.inner.denoise(x, t)" : `self.inner.denoise(x, t, label=${state.other})`;
  const {T} = parseProcess(state.sde),
    inside = `${num(state.low * T)} <= float(t) <= ${num(state.high * T)}`;
  return [
    "",
    "",
    "class Guided(Wrapper):",
    "    def denoise(self, x, t):",
    `        wanted, base = self.inner.denoise(x, t, label=${state.label}), ${base}`,
    `        return base + ${num(state.w)} * (wanted - base) if ${inside} else wanted`,
    "",
    "",
  ];
}

function guidedLines(state) {
  return [
    ...start(state, [WRAPPER]),
    ...guidedClass(state),
    ...sampleLine(state, {model: "Guided(data.denoiser(sde))"}),
    "x = out.x",
  ];
}

export function directionOf(state) {
  const angle = (state.angle * Math.PI) / 180;
  return [Math.cos(angle), Math.sin(angle)];
}

function questionLines(state) {
  return [
    ...start(state),
    `posterior = data.posterior([${list(directionOf(state))}], [${num(state.y)}], ${num(state.std)})`,
    ...sampleLine(state, {model: "posterior.denoiser(sde)"}),
    "x = out.x",
  ];
}

// The pixels that are painted and their grey levels in [-1, 1].
export function seenPixels(seen) {
  const at = [],
    y = [];
  [...seen].forEach((c, i) => {
    if (c !== "-") {
      at.push(i);
      y.push(parseInt(c, 17) / 8 - 1);
    }
  });
  return {at, y};
}

const digitLaw = ({h}) =>
  h
    ? [
        "from undiffuse.data.toys import digits",
        "",
        "rows = digits()",
        `data = ud.Mixture([1.0] * len(rows.x), rows.x.double() / 8 - 1, ${num(h)} ** 2, labels=rows.y.tolist())`,
      ]
    : ["from undiffuse.explorer import mixture", "", 'data = mixture("digits")'];

function drawnLines(state) {
  const plain = state.w === 1,
    whole = {...state, other: "all", low: 0, high: 1},
    model = plain ? `data.given(${state.label}).denoiser(sde)` : "Guided(data.denoiser(sde))";
  return [
    "import undiffuse as ud",
    ...(plain ? [] : [WRAPPER]),
    importLine(state.sde),
    ...digitLaw(state),
    processLine(state.sde),
    ...(plain ? [] : guidedClass(whole)),
    ...sampleLine(state, {model, n: Math.min(36, state.p)}),
    "x = out.x",
  ];
}

function digitLines(state) {
  if (state.mode === "draw") return drawnLines(state);
  const {at, y} = seenPixels(state.seen);
  return [
    "import torch",
    "import undiffuse as ud",
    importLine(state.sde),
    ...digitLaw({h: 0}),
    processLine(state.sde),
    `A = torch.eye(64, dtype=torch.float64)[[${at.join(", ")}]]`,
    `posterior = data.posterior(A, ${list(y)}, ${num(state.std)})`,
    ...sampleLine(state, {n: 8, model: "posterior.denoiser(sde)"}),
    "x = out.x",
  ];
}

function latentLines(state) {
  const [a, b] = pointsOf(state, parseLaw(state.law));
  return [
    "import torch",
    ...start(state, ["from undiffuse.samplers.grid import time_grid"]),
    "model = data.denoiser(sde)",
    `times = time_grid(sde, ${state.n}, "log_snr", t_end=model.t_end(), sigma_data=model.sigma_data).flip(0)`,
    `z = torch.tensor(${list([a, b])}, dtype=torch.float64)`,
    "for t, s in zip(times[:-1], times[1:]):",
    "    slope = model.reverse_drift(z, t, eta=0.0)",
    "    z = z + (s - t) / 2 * (slope + model.reverse_drift(z + (s - t) * slope, s, eta=0.0))",
    "between = torch.linspace(0, 1, 25, dtype=torch.float64)[:, None]",
    "between = (1 - between) * z[:1] + between * z[1:]",
    `out = ud.sample(model, x_T=between, method="heun", steps=${state.n}, grid="log_snr")`,
    "x = out.x",
  ];
}

// An exact draw at t − dt and one step of Euler and Maruyama.
function proofLines(state) {
  const {T} = parseProcess(state.sde),
    {s, length} = stepOf(state, T),
    shape = `0, 0, ${state.p}, (1,), torch.float64`;
  return [
    "import torch",
    ...start(state, ["from undiffuse.random import Purpose, normal"]),
    `t, dt, n = torch.tensor(${num(s)}, dtype=torch.float64), ${num(length)}, ${state.p}`,
    `eps = normal(${state.seed}, Purpose.NOISE, ${shape})`,
    `dW = dt**0.5 * normal(${state.seed}, Purpose.STEP, ${shape})`,
    `x = sde.alpha(t) * data.sample(n, seed=${state.seed}) + sde.sigma(t) * eps`,
    "x = x + sde.f(t) * x * dt + sde.g2(t).sqrt() * dW",
    "score = data.denoiser(sde).score(x, t + dt)",
    `print((dW * score).mean() / (score**2).mean())  # about -g dt`,
  ];
}

const labStart = (state) => [
  ...start(state),
  ...sampleLine(state, {model: "data.denoiser(sde)", n: state.p}),
  "x = out.x",
];

// The code of a scene; it leaves the page's particles in `x`.
export function codeOf(state) {
  const lines = {
    river: plainLines,
    cloud: plainLines,
    compare: compareLines,
    lab: labStart,
    guidance: guidedLines,
    question: questionLines,
    digits: digitLines,
    latent: latentLines,
    proof: proofLines,
  }[state.view](state);
  return lines.join("\n") + "\n";
}

export const callsOf = (state) => METHODS[state.method].calls * state.n + 1;
