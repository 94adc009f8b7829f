// What the modes of a cloud are taken hold of by: their places, the ends of two axes, and a bar of their weights.
import {editedMode, modeOf, withMode} from "./modes.js";

const REACH = 2,
  BAR = 12;

// The edited mode's ellipse at two deviations and the bar of weights, over a frame whose data are `scale` times as large.
export function drawGrips(pen, frame, state, law, scale) {
  const k = editedMode(state);
  if (k === null) return;
  const {x, y, long, wide, angle} = modeOf(law, k),
    at = placer(frame, scale, x, y, angle),
    round = Array.from({length: 61}, (_, i) => (i * Math.PI) / 30);
  pen.line(
    round.map((u) => at(REACH * long * Math.cos(u), REACH * wide * Math.sin(u))),
    {colour: pen.ink, width: 1.4, dash: [5, 4]},
  );
  drawBar(pen, frame, law, k);
}

// From coordinates along and across a mode's longer axis to the canvas.
function placer(frame, scale, x, y, angle) {
  const c = Math.cos((angle * Math.PI) / 180),
    s = Math.sin((angle * Math.PI) / 180);
  return (u, v) => [frame.X(scale * (x + c * u - s * v)), frame.Y(scale * (y + s * u + c * v))];
}

const barOf = (frame) => ({x: frame.x + 16, y: frame.y + 26, w: Math.min(260, frame.w - 32)});

// All weights on one bar, the edited mode's first.
function drawBar(pen, frame, law, k) {
  const {x, y, w} = barOf(frame),
    share = law.weights[k];
  pen.box(x - 8, y - 24, w + 16, BAR + 32, pen.paper, 0.8);
  pen.text(`Weight of mode ${k + 1} of ${law.K}: ${Math.round(100 * share)} %`, x, y - 8, {colour: pen.ink});
  pen.box(x, y, w, BAR, pen.rule);
  pen.box(x, y, w * share, BAR, pen.made);
}

// Buttons for the places of all modes and for the axes and the weight of the edited one.
export function grips(app, frame, state, law, scale) {
  const k = editedMode(state);
  if (k === null) return [];
  return [
    ...Array.from({length: law.K}, (_, j) => placeGrip(app, frame, law, scale, j)),
    ...["long", "wide"].map((axis) => axisGrip(app, frame, law, scale, k, axis)),
    weightGrip(app, frame, law, k),
  ];
}

function placeGrip(app, frame, law, scale, k) {
  const {x, y} = modeOf(law, k),
    set = (u, v) => app.set({law: withMode(lawNow(app), k, {x: u, y: v}), edit: k + 1});
  return {
    name: `Mode ${k + 1}`,
    value: [x, y],
    step: [0.1, 0.1],
    set,
    at: [frame.X(scale * x), frame.Y(scale * y)],
    move: (px, py) => set(...frame.at(px, py).map((v) => v / scale)),
    press: () => app.set({edit: k + 1}),
  };
}

// An end of an axis says how wide the mode is and where it points; what it was on the other axis stays.
function axisGrip(app, frame, law, scale, k, axis) {
  const mode = modeOf(law, k),
    turn = axis === "long" ? 0 : 90,
    other = mode[axis === "long" ? "wide" : "long"],
    at = placer(frame, scale, mode.x, mode.y, mode.angle);
  const set = (width, angle) => {
    const [long, wide] = width >= other ? [width, other] : [other, width],
      along = width >= other ? angle : angle - 90;
    app.set({law: withMode(lawNow(app), k, {long, wide, angle: along})});
  };
  return {
    name: `Width ${axis === "long" ? "along" : "across"} and angle of mode ${k + 1}`,
    value: [mode[axis], mode.angle + turn],
    step: [0.05, 5],
    set,
    small: true,
    at: at(axis === "long" ? REACH * mode.long : 0, axis === "wide" ? REACH * mode.wide : 0),
    move(px, py) {
      const [u, v] = frame.at(px, py).map((value, j) => value / scale - (j ? mode.y : mode.x));
      set(Math.hypot(u, v) / REACH, (Math.atan2(v, u) * 180) / Math.PI);
    },
  };
}

function weightGrip(app, frame, law, k) {
  const {x, y, w} = barOf(frame),
    set = (weight) => app.set({law: withMode(lawNow(app), k, {weight})});
  return {
    name: `Weight of mode ${k + 1}`,
    value: [law.weights[k]],
    step: [0.02, 0.02],
    set: (u, v) => set(u + v),
    small: true,
    at: [x + w * law.weights[k], y + BAR / 2],
    move: (px) => set((px - x) / w),
  };
}

// A drag outlives the law that it began with.
const lawNow = (app) => app.view.scene.law;
