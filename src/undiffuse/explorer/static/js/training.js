// The 1,797 real digits of 8 by 8: which of them is nearest to a drawn one, and the law that has one component for each.
import {Mixture} from "./mixture.js";

const LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#%*+-./:",
  SIZE = 64,
  LEVELS = 17,
  LENGTH = 44;

let packed = "",
  kept = null;

export function setTraining(text) {
  packed = text;
  kept = null;
}

// All digits in grey levels from -1 to 1, and their classes; two letters hold three numbers from 0 to 16.
export function training() {
  if (kept) return kept;
  const n = packed.length / LENGTH,
    x = new Float64Array(n * SIZE),
    y = new Int32Array(n),
    value = Object.fromEntries([...LETTERS].map((letter, i) => [letter, i]));
  for (let i = 0; i < n; i++) {
    for (let at = 0; at < LENGTH; at += 2) {
      let triple = value[packed[i * LENGTH + at]] * LETTERS.length + value[packed[i * LENGTH + at + 1]];
      for (let k = (at / 2) * 3; k < (at / 2 + 1) * 3; k++) {
        if (k < SIZE) x[i * SIZE + k] = (triple % LEVELS) / 8 - 1;
        else if (k === SIZE) y[i] = triple % LEVELS;
        triple = Math.floor(triple / LEVELS);
      }
    }
  }
  kept = {n, x, y, spacing: new Map(), laws: new Map()};
  return kept;
}

// One component of deviation h for every digit.
export function kernelLaw(h) {
  const {n, x, y, laws} = training();
  if (!laws.has(h)) {
    laws.clear();
    laws.set(h, new Mixture(new Array(n).fill(1), x, new Array(n).fill(h * h), SIZE, [...y]));
  }
  return laws.get(h);
}

// The nearest training digit to the numbers at a place, but for one: {index, distance}.
export function nearest(points, at = 0, except = -1) {
  const {n, x} = training();
  let index = -1,
    best = Infinity;
  for (let i = 0; i < n; i++) {
    let square = 0;
    for (let k = 0; k < SIZE && square < best; k++) square += (points[at + k] - x[i * SIZE + k]) ** 2;
    if (square < best && i !== except) {
      best = square;
      index = i;
    }
  }
  return {index, distance: Math.sqrt(best)};
}

const middle = (values) => Float64Array.from(values).sort()[values.length >> 1];

// The middle distance of drawn digits to the nearest training digit, and that of a class's training digits to another.
export const middleDistance = (found) => middle(found.map(({distance}) => distance));

export function spacingOf(label) {
  const {x, y, spacing} = training();
  if (!spacing.has(label)) {
    const own = [...y.keys()].filter((i) => y[i] === label);
    spacing.set(label, middleDistance(own.map((i) => nearest(x, i * SIZE, i))));
  }
  return spacing.get(label);
}
