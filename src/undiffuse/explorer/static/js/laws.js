// The laws of the page: numbers that Python has put into it (laws.py), laws written in the address, and the digits.
import {Mixture} from "./mixture.js";

let table = {};
let packedDigits = "";

// Called once with what the page carries.
export function setLaws(laws, digits) {
  table = laws;
  packedDigits = digits;
}

export const lawNames = (d) => Object.keys(table).filter((name) => table[name].means[0].length === d);

export const lawTitle = (text) => (text.startsWith("mix:") ? "Custom mixture" : table[text.split(":")[0]].title);

export const knownLaw = (text) =>
  text.startsWith("mix:") ? /^mix:[-\d.,;e]+$/.test(text) : text.split(":")[0] in table;

export const lawDimension = (text) =>
  text.startsWith("mix:")
    ? text.slice(4).split(";")[0].split(",").length === 3
      ? 1
      : 2
    : table[text.split(":")[0]].means[0].length;

const made = new Map();

// The law of a text: a name, a name with the width of its components ("points:0.05"), or "mix:" and numbers.
export function parseLaw(text) {
  if (!made.has(text)) {
    if (made.size > 40) made.clear();
    made.set(text, text.startsWith("mix:") ? fromNumbers(text.slice(4)) : fromTable(...text.split(":")));
  }
  return made.get(text);
}

function fromTable(name, width) {
  const {weights, means, covariances, labels} = table[name],
    d = means[0].length;
  const spreads = covariances.map((c) => (width ? Number(width) ** 2 : round(c, d) ? c[0] : c));
  return new Mixture(weights, means.flat(), spreads, d, labels);
}

const round = (c, d) => c.every((value, i) => value === (i % (d + 1) === 0 ? c[0] : 0));

// "w,x,s;..." in one dimension, "w,x,y,cxx,cxy,cyy;..." in two; the components are the classes.
function fromNumbers(text) {
  const rows = text.split(";").map((part) => part.split(",").map(Number)),
    d = rows[0].length === 3 ? 1 : 2;
  const covariances = rows.map((r) => (d === 1 ? r[2] ** 2 : [r[3], r[4], r[4], r[5]]));
  return new Mixture(
    rows.map((r) => r[0]),
    rows.flatMap((r) => r.slice(1, 1 + d)),
    covariances,
    d,
    rows.map((_, k) => k),
  );
}

const short = (value) => String(Number(value.toPrecision(4)));

// A law as the text that `parseLaw` reads.
export function formatLaw(law) {
  return (
    "mix:" +
    Array.from({length: law.K}, (_, k) => {
      const c = law.covariance(k),
        tail = law.d === 1 ? [Math.sqrt(c[0])] : [c[0], c[1], c[3]];
      return [law.weights[k], ...law.mean(k), ...tail].map(short).join(",");
    }).join(";")
  );
}

// The ten digits of 8 x 8: one Gaussian each, from float16 numbers in base64.
export function digitsLaw() {
  if (made.has("digits")) return made.get("digits");
  const bytes = Uint8Array.from(atob(packedDigits), (c) => c.charCodeAt(0)),
    view = new DataView(bytes.buffer);
  const values = Float64Array.from({length: bytes.length / 2}, (_, i) => half(view.getUint16(2 * i, true)));
  const covariances = Array.from({length: 10}, (_, k) => unpacked(values, 640 + k * 2080, 64));
  const law = new Mixture(new Array(10).fill(1), values.subarray(0, 640), covariances, 64, [...Array(10).keys()]);
  made.set("digits", law);
  return law;
}

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1,
    exponent = (bits >> 10) & 31,
    fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : (2 ** -14 * fraction) / 1024);
}

function unpacked(values, at, d) {
  const c = new Float64Array(d * d);
  for (let i = 0, p = at; i < d; i++) for (let j = 0; j <= i; j++, p++) c[i * d + j] = c[j * d + i] = values[p];
  return c;
}
