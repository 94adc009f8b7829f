// The state of the page: one flat record, every key of it in the address, only what differs from the view's defaults.
import {GRIDS} from "./grid.js";
import {METHODS} from "./steps.js";
import {FAULTS} from "./museum.js";
import {MOST_MODES} from "./modes.js";
import {PROCESSES} from "./processes.js";
import {knownLaw, lawDimension} from "./laws.js";

export const VIEWS = {
  river: "River",
  cloud: "Cloud",
  compare: "Compare",
  lab: "Error lab",
  guidance: "Guidance",
  question: "Question",
  digits: "Digits",
  latent: "Likelihood",
  proof: "Proof",
  own: "Your model",
};

const number = (value, low, high) => ({value, kind: "number", low, high});
const whole = (value, low, high) => ({value, kind: "whole", low, high});
const choice = (value, options) => ({value, kind: "choice", options});
const list = (value, options) => ({value, kind: "list", options});
const text = (value, fits) => ({value, kind: "text", fits});
const flag = (value) => ({value, kind: "flag"});

const processFits = (value) => {
  const [name, tail] = value.split(":"),
    known = PROCESSES[name];
  if (!known) return false;
  const args = tail === undefined ? [] : tail.split(",").map(Number),
    [, params] = known;
  return (
    args.length <= params.length &&
    args.every((v, i) => v >= params[i][2] && v <= params[i][3]) &&
    !(name === "ve" && args.length && args[0] >= args[1])
  );
};
const paneFits = (value) =>
  value.split("|").length <= 4 &&
  value.split("|").every((part) => {
    const [sde, method, eta, score] = part.split("~");
    return (
      processFits(sde) &&
      (method === undefined || method in METHODS) &&
      (eta === undefined || (eta >= 0 && eta <= 2)) &&
      (score === undefined || score in FAULTS)
    );
  });
const pointFits = (value) => value === "" || /^-?[\d.]+,-?[\d.]+$/.test(value);
export const ANSWER_NAMES = ["exact", "replacement", "dps", "pigdm", "mmps"];
const SOLVERS = Object.keys(METHODS);

// Every key with its default, its range and what it means.
export const FIELDS = {
  view: choice("river", Object.keys(VIEWS)),
  law: text("bimodal", knownLaw),
  sde: text("vp", processFits),
  method: choice("euler_maruyama", SOLVERS),
  eta: number(1, 0, 2),
  n: whole(64, 1, 1024),
  grid: choice("auto", ["auto", ...Object.keys(GRIDS)]),
  seed: whole(0, 0, 2 ** 32 - 1),
  p: whole(200, 1, 20000),
  t: number(0, 0, 1),
  path: flag(false),
  dir: choice("reverse", ["reverse", "forward"]),
  r: number(0.16, 0.01, 1),
  corr: whole(1, 1, 5),
  scale: choice("auto", ["auto", "plain", "unit"]),
  gamma: number(0.5, 0.1, 2),
  show: choice("paths", ["paths", "lines", "both", "none"]),
  drop: text("", pointFits),
  cells: whole(0, 0, 400),
  score: choice("exact", Object.keys(FAULTS)),
  arrows: choice("none", ["none", "score", "velocity", "drift", "denoiser"]),
  trails: flag(true),
  edit: whole(0, 0, MOST_MODES),
  panes: text("vp|subvp|ve", paneFits),
  axis: choice("t", ["t", "log_snr"]),
  solvers: list(["euler_maruyama", "ddim", "heun", "dpmpp_3m"], SOLVERS),
  measure: choice("path", ["path", "law", "weights"]),
  label: whole(0, 0, 9),
  w: number(3, -1, 8),
  low: number(0, 0, 1),
  high: number(1, 0, 1),
  other: choice("all", ["all", ...[..."0123456789"]]),
  angle: number(0, -180, 180),
  y: number(0.5, -6, 6),
  std: number(0.2, 0.02, 2),
  zeta: number(1, 0.1, 5),
  answers: list(ANSWER_NAMES.slice(0, 4), ANSWER_NAMES),
  mode: choice("draw", ["draw", "complete"]),
  h: number(0, 0, 0.6),
  near: flag(true),
  a: text("", pointFits),
  b: text("", pointFits),
  dt: number(0.01, 0.001, 0.1),
  minus: flag(false),
  seen: text("", (value) => value === "" || /^[-0-9a-g]{64}$/.test(value)),
};

const OWN = {
  cloud: {law: "ring", p: 1000, n: 64},
  compare: {p: 60, method: "ancestral", n: 64, grid: "log_snr"},
  lab: {n: 16, p: 400, method: "heun"},
  guidance: {law: "overlap", method: "ddim", p: 800, n: 48, label: 1},
  question: {law: "blobs", method: "ancestral", p: 400, n: 48},
  own: {method: "ddim", n: 20, p: 1000},
  latent: {law: "moons", n: 48},
  proof: {p: 4000, t: 0.3},
  digits: {method: "dpmpp_2m_sde", n: 30, p: 18, label: 3, w: 1},
};

export const defaults = (view) => ({
  ...Object.fromEntries(Object.entries(FIELDS).map(([key, field]) => [key, field.value])),
  ...OWN[view],
  view,
});

const five = (value) => String(Number(Number(value).toPrecision(5)));

const WRITE = {
  number: five,
  whole: String,
  choice: String,
  text: String,
  list: (value) => value.join(","),
  flag: (value) => (value ? "1" : "0"),
};

function read(field, text) {
  const value = Number(text);
  switch (field.kind) {
    case "number":
      return text !== "" && value >= field.low && value <= field.high ? value : undefined;
    case "whole":
      return /^\d+$/.test(text) && value >= field.low && value <= field.high ? value : undefined;
    case "choice":
      return field.options.includes(text) ? text : undefined;
    case "list":
      return readList(field, text);
    case "flag":
      return {0: false, 1: true}[text];
    default:
      return field.fits(text) ? text : undefined;
  }
}

function readList(field, text) {
  const found = text === "" ? [] : text.split(",");
  return found.every((name) => field.options.includes(name)) ? found : undefined;
}

// The address of a state: `#v=1&view=cloud&...`, readable, keys in the order of FIELDS.
export function format(state) {
  const base = defaults(state.view),
    parts = ["v=1", `view=${state.view}`];
  for (const key of Object.keys(FIELDS)) {
    const written = WRITE[FIELDS[key].kind](state[key]);
    if (key !== "view" && written !== WRITE[FIELDS[key].kind](base[key])) parts.push(`${key}=${escaped(written)}`);
  }
  return "#" + parts.join("&");
}

const escaped = (text) =>
  encodeURIComponent(text).replace(/%2C/g, ",").replace(/%3A/g, ":").replace(/%3B/g, ";").replace(/%7C/g, "|");

// The state of an address and what could not be understood in it.
export function parse(hash) {
  const pairs = new URLSearchParams(hash.replace(/^#/, "").replace(/\+/g, "%2B")),
    ignored = [];
  const view = VIEWS[pairs.get("view")] ? pairs.get("view") : "river",
    state = defaults(view);
  for (const [key, text] of pairs) {
    if (key === "v" || key === "embed" || (key === "view" && text === view)) continue;
    const value = FIELDS[key] ? read(FIELDS[key], text) : undefined;
    if (value === undefined) ignored.push(`${key}=${text}`.slice(0, 40));
    else state[key] = value;
  }
  return {state: fitting(state), ignored};
}

// A state whose law has the dimension and the classes that its view needs.
export function fitting(state) {
  const d = WANTED[state.view],
    own = defaults(state.view);
  if (d && !d.includes(lawDimension(state.law))) return {...state, law: own.law};
  return state;
}

export const WANTED = {river: [1], compare: [1], lab: [1, 2], cloud: [2], guidance: [2], question: [2], latent: [2], proof: [1]};
