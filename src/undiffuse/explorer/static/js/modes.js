// One mode of a law in the plane as numbers that can be changed: weight, place, two widths and the angle of the longer.
import {Mixture} from "./mixture.js";
import {formatLaw, parseLaw} from "./laws.js";

export const MOST_MODES = 12;
const FAR = 6;

// What a mode is made of: [key, label, least, most, step, what it is].
export const PARTS = [
  ["weight", "Weight of the mode", 0.01, 0.99, 0.01, "Its fraction of the data; the other modes divide the rest in proportion."],
  ["x", "Position, x₁", -FAR, FAR, 0.1, "The mean of the mode."],
  ["y", "Position, x₂", -FAR, FAR, 0.1, "The mean of the mode."],
  ["long", "Width along", 0.05, 3, 0.05, "Its longer standard deviation."],
  ["wide", "Width across", 0.05, 3, 0.05, "Its shorter one."],
  ["angle", "Angle", -90, 90, 1, "The direction of the longer axis, in degrees."],
];

// The mode that is edited, none if the law is not for editing; `edit` counts from 1.
export const editedMode = ({edit, law}) => {
  const {K} = parseLaw(law);
  return edit && K <= MOST_MODES ? Math.min(edit, K) - 1 : null;
};

export function modeOf(law, k) {
  const {basis, values} = law.frames[k],
    turn = (Math.atan2(basis[3], basis[1]) * 180) / Math.PI;
  return {
    weight: law.weights[k],
    x: law.means[2 * k],
    y: law.means[2 * k + 1],
    long: Math.sqrt(values[1]),
    wide: Math.sqrt(values[0]),
    angle: values[1] - values[0] < 1e-9 ? 0 : upright(turn),
  };
}

// An axis has no direction: its angle in (−90°, 90°].
const upright = (degrees) => 90 - ((((90 - degrees) % 180) + 180) % 180);

const fit = (key, value) => {
  const [, , low, high] = PARTS.find(([name]) => name === key);
  return key === "angle" ? upright(value) : Math.min(high, Math.max(low, value));
};

// The text of the law with one mode changed as `patch` says.
export function withMode(law, k, patch) {
  const mode = modeOf(law, k);
  for (const [key, value] of Object.entries(patch)) mode[key] = fit(key, value);
  const others = 1 - law.weights[k] || 1;
  return written(
    Array.from({length: law.K}, (_, j) =>
      j === k ? mode : {...modeOf(law, j), weight: (law.weights[j] / others) * (1 - mode.weight)},
    ),
  );
}

// One mode more, where none is, or one less.
export function withAnother(law) {
  const modes = Array.from({length: law.K}, (_, k) => modeOf(law, k)),
    weight = 1 / (law.K + 1),
    [x, y] = freePlace(modes);
  return written([
    ...modes.map((mode) => ({...mode, weight: mode.weight * (1 - weight)})),
    {weight, x, y, long: 0.4, wide: 0.4, angle: 0},
  ]);
}

export function without(law, k) {
  return written(
    Array.from({length: law.K}, (_, j) => modeOf(law, j)).filter((_, j) => j !== k),
  );
}

// Of a few places on a circle the one that is farthest from all modes.
function freePlace(modes) {
  const places = Array.from({length: 12}, (_, i) => [1.8 * Math.cos((i * Math.PI) / 6), 1.8 * Math.sin((i * Math.PI) / 6)]),
    room = ([x, y]) => Math.min(...modes.map((mode) => Math.hypot(mode.x - x, mode.y - y)));
  return places.reduce((best, place) => (room(place) > room(best) + 1e-9 ? place : best));
}

function written(modes) {
  const covariances = modes.map(({long, wide, angle}) => {
    const c = Math.cos((angle * Math.PI) / 180),
      s = Math.sin((angle * Math.PI) / 180),
      cross = (long ** 2 - wide ** 2) * c * s;
    return [(long * c) ** 2 + (wide * s) ** 2, cross, cross, (long * s) ** 2 + (wide * c) ** 2];
  });
  return formatLaw(
    new Mixture(
      modes.map(({weight}) => weight),
      modes.flatMap(({x, y}) => [x, y]),
      covariances,
      2,
    ),
  );
}
