// Copy as Python: the scene as a few lines of the library that reproduce the page's particles.
import {METHODS} from "./steps.js";
import {PROCESSES, parseProcess} from "./processes.js";
import {parseLaw} from "./laws.js";
import {gridOf, optionsOf} from "./scene.js";

const num = (v) => (Number.isInteger(v) ? v.toFixed(1) : String(v));
const list = (values) => `[${[...values].map((v) => (typeof v === "object" ? list(v) : num(v))).join(", ")}]`;

// Lines that make `data`.
function lawLines(text) {
  const [name, width] = text.split(":");
  if (text.startsWith("mix:")) return mixtureLines(parseLaw(text));
  if (!width) return ["from undiffuse.explorer import law", "", `data = law("${name}")`];
  return [
    "from undiffuse.explorer import law",
    "",
    `points = law("${name}")`,
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

const start = (state) => [
  "import undiffuse as ud",
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
  return [...start(state), ...sampleLine(state, {model: "data.denoiser(sde)"}), "x = out.x"];
}

function compareLines(state) {
  const panes = state.panes.split("|").map((pane) => pane.split("~")),
    names = [...new Set(panes.map(([sde]) => PROCESSES[sde.split(":")[0]][2]))];
  const calls = panes.map(([sde, method = state.method, eta = state.eta]) => {
    const made = processLine(sde).replace("sde = ", ""),
      grid = gridOf(state, method);
    return (
      `    ud.sample(data.denoiser(${made}), n=${state.p}, method="${method}", steps=${state.n},\n` +
      `              grid="${grid}", seed=${state.seed}${state.path ? ', noise="path"' : ""}${optionText(state, method, Number(eta))}).x,`
    );
  });
  return [
    "import undiffuse as ud",
    `from undiffuse.processes import ${names.join(", ")}`,
    ...lawLines(state.law),
    "xs = [",
    ...calls,
    "]",
    "x = xs[0]",
  ];
}

function guidedLines(state) {
  const base = state.other === "all" ? "self.inner.denoise(x, t)" : `self.inner.denoise(x, t, label=${state.other})`;
  const {T} = parseProcess(state.sde),
    inside = `${num(state.low * T)} <= float(t) <= ${num(state.high * T)}`;
  return [
    "import undiffuse as ud",
    "from undiffuse.model import Wrapper",
    importLine(state.sde),
    ...lawLines(state.law),
    processLine(state.sde),
    "",
    "",
    "class Guided(Wrapper):",
    "    def denoise(self, x, t):",
    `        wanted, base = self.inner.denoise(x, t, label=${state.label}), ${base}`,
    `        return base + ${num(state.w)} * (wanted - base) if ${inside} else wanted`,
    "",
    "",
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
    `law_given_y = data.posterior([${list(directionOf(state))}], [${num(state.y)}], ${num(state.std)})`,
    ...sampleLine(state, {model: "law_given_y.denoiser(sde)"}),
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

function digitLines(state) {
  const head = [
    state.mode === "draw" ? "" : "import torch",
    "import undiffuse as ud",
    importLine(state.sde),
    "from undiffuse.explorer import law",
    "",
    'data = law("digits")',
    processLine(state.sde),
  ];
  if (state.mode === "draw") {
    return [...head, `model = data.given(${state.label}).denoiser(sde)`, ...sampleLine(state), "x = out.x"].filter(
      (line, i) => line || i,
    );
  }
  const {at, y} = seenPixels(state.seen);
  return [
    ...head,
    `A = torch.eye(64, dtype=torch.float64)[[${at.join(", ")}]]`,
    `law_given_y = data.posterior(A, ${list(y)}, ${num(state.std)})`,
    ...sampleLine(state, {n: 8, model: "law_given_y.denoiser(sde)"}),
    "x = out.x",
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
  }[state.view](state);
  return lines.join("\n") + "\n";
}

export const callsOf = (state) => METHODS[state.method].calls * state.n + 1;
