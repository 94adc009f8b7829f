// Drawing on a canvas in the page's colours: frames with axes, lines, dots, arrows, words.

// The modes' colours: told apart by everyone, and away from the blue of the exact law.
const LIGHT = {
  paper: "#fbfaf6",
  ink: "#1d1c1a",
  muted: "#68635b",
  rule: "#d9d4c8",
  wash: "#f2efe7",
  real: "#2b69a8",
  made: "#c9541e",
  heat: ["#fbfaf6", "#dfe8ec", "#b3cfe3", "#7aabd4", "#4484bd", "#1f5b98", "#0c3766"],
  modes: ["#c9541e", "#7b3f98", "#2f7d4f", "#a6761d", "#b8336a", "#4a5568", "#00798c", "#8d5524"],
};
const DARK = {
  paper: "#15161a",
  ink: "#e9e6df",
  muted: "#a09b92",
  rule: "#3a3b42",
  wash: "#1d1f24",
  real: "#7db4ea",
  made: "#f0905a",
  heat: ["#15161a", "#192a42", "#1d4370", "#2a639f", "#4587c7", "#79b1e6", "#c9e3fb"],
  modes: ["#f0905a", "#c79bea", "#7fd19b", "#e5c46b", "#f28bb0", "#b8c1cf", "#5fd0df", "#d9a679"],
};

export const themeOf = (dark) => (dark ? DARK : LIGHT);

const FONT = 'system-ui, -apple-system, "Segoe UI", "Helvetica Neue", Arial, sans-serif';

const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// 256 colours between the stops of a theme's heat map, as (red, green, blue) bytes.
export function ramp(stops) {
  const out = new Uint8ClampedArray(768),
    colours = stops.map(rgb);
  for (let i = 0; i < 256; i++) {
    const place = (i / 255) * (stops.length - 1),
      k = Math.min(stops.length - 2, Math.floor(place)),
      u = place - k;
    for (let c = 0; c < 3; c++) out[3 * i + c] = colours[k][c] * (1 - u) + colours[k + 1][c] * u;
  }
  return out;
}

// A pen over a canvas of w by h points, sharp at any pixel ratio.
export class Pen {
  constructor(ctx, w, h, dark) {
    Object.assign(this, {ctx, w, h, dark, ...themeOf(dark)});
    this.small = w < 560;
  }

  clear() {
    this.ctx.fillStyle = this.paper;
    this.ctx.fillRect(0, 0, this.w, this.h);
  }

  text(
    words,
    x,
    y,
    {size = 12, colour = this.muted, align = "left", base = "alphabetic", weight = 400, turn = 0, halo = false} = {},
  ) {
    const {ctx} = this;
    ctx.save();
    ctx.translate(x, y);
    ctx.rotate(turn);
    ctx.font = `${weight} ${size}px ${FONT}`;
    Object.assign(ctx, {textAlign: align, textBaseline: base, fillStyle: colour});
    if (halo) {
      Object.assign(ctx, {strokeStyle: this.paper, lineWidth: 4, lineJoin: "round"});
      ctx.strokeText(words, 0, 0);
    }
    ctx.fillText(words, 0, 0);
    ctx.restore();
  }

  width(words, size = 12) {
    this.ctx.font = `400 ${size}px ${FONT}`;
    return this.ctx.measureText(words).width;
  }

  line(points, {colour = this.ink, width = 1, alpha = 1, dash = []} = {}) {
    const {ctx} = this;
    ctx.save();
    Object.assign(ctx, {
      strokeStyle: colour,
      lineWidth: width,
      globalAlpha: alpha,
      lineJoin: "round",
      lineCap: "round",
    });
    ctx.setLineDash(dash);
    ctx.beginPath();
    points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.stroke();
    ctx.restore();
  }

  area(points, colour, alpha) {
    const {ctx} = this;
    ctx.save();
    Object.assign(ctx, {fillStyle: colour, globalAlpha: alpha});
    ctx.beginPath();
    points.forEach(([x, y], i) => (i ? ctx.lineTo(x, y) : ctx.moveTo(x, y)));
    ctx.fill();
    ctx.restore();
  }

  box(x, y, w, h, colour, alpha = 1) {
    this.ctx.save();
    Object.assign(this.ctx, {fillStyle: colour, globalAlpha: alpha});
    this.ctx.fillRect(x, y, w, h);
    this.ctx.restore();
  }

  outline(x, y, size, colour) {
    const ends = [x + size, y + size];
    this.line([[x, y], [ends[0], y], ends, [x, ends[1]], [x, y]], {colour});
  }

  // A mark of a shape that tells classes apart without colour.
  mark(x, y, size, shape = 0, colour = this.made, alpha = 1) {
    const {ctx} = this;
    ctx.save();
    Object.assign(ctx, {fillStyle: colour, globalAlpha: alpha});
    ctx.beginPath();
    outline(ctx, x, y, size, shape % 4);
    ctx.fill();
    ctx.restore();
  }

  arrow(x, y, dx, dy, colour = this.ink, alpha = 1) {
    const length = Math.hypot(dx, dy);
    if (length < 1.5) return;
    const head = Math.min(5, length / 2),
      u = dx / length,
      v = dy / length,
      tx = x + dx,
      ty = y + dy;
    this.line(
      [
        [x, y],
        [tx, ty],
      ],
      {colour, alpha, width: 1.1},
    );
    this.line(
      [
        [tx - head * (u + 0.5 * v), ty - head * (v - 0.5 * u)],
        [tx, ty],
        [tx - head * (u - 0.5 * v), ty - head * (v + 0.5 * u)],
      ],
      {colour, alpha, width: 1.1},
    );
  }

  // A row of what colours stand for, from the left; entries are [words, colour, dashed].
  key(entries, x, y, size = 12) {
    for (const [words, colour, dash] of entries) {
      if (x + 24 + this.width(words, size) > this.w) {
        x = 12;
        y += size + 5;
      }
      this.line(
        [
          [x, y - 4],
          [x + 16, y - 4],
        ],
        {colour, width: 3, dash: dash ? [4, 4] : []},
      );
      this.text(words, x + 21, y, {size});
      x += 38 + this.width(words, size);
    }
    return y;
  }

  clip(frame, draw) {
    this.ctx.save();
    this.ctx.beginPath();
    this.ctx.rect(frame.x, frame.y, frame.w, frame.h);
    this.ctx.clip();
    draw();
    this.ctx.restore();
  }
}

function outline(ctx, x, y, s, shape) {
  if (shape === 0) ctx.arc(x, y, s, 0, 2 * Math.PI);
  else if (shape === 1) ctx.rect(x - s * 0.9, y - s * 0.9, 1.8 * s, 1.8 * s);
  else if (shape === 2) {
    ctx.moveTo(x, y - 1.25 * s);
    ctx.lineTo(x + 1.15 * s, y + 0.85 * s);
    ctx.lineTo(x - 1.15 * s, y + 0.85 * s);
  } else {
    ctx.moveTo(x, y - 1.35 * s);
    ctx.lineTo(x + 1.35 * s, y);
    ctx.lineTo(x, y + 1.35 * s);
    ctx.lineTo(x - 1.35 * s, y);
  }
  ctx.closePath();
}

// A rectangle of the canvas with coordinates: x0 at its left, x1 at its right, y0 at its foot, y1 at its top.
export class Frame {
  constructor(x, y, w, h, x0, x1, y0, y1) {
    Object.assign(this, {x, y, w, h, x0, x1, y0, y1});
  }

  X(value) {
    return this.x + ((value - this.x0) / (this.x1 - this.x0)) * this.w;
  }

  Y(value) {
    return this.y + this.h - ((value - this.y0) / (this.y1 - this.y0)) * this.h;
  }

  at(px, py) {
    return [
      this.x0 + ((px - this.x) / this.w) * (this.x1 - this.x0),
      this.y0 + ((this.y + this.h - py) / this.h) * (this.y1 - this.y0),
    ];
  }

  has(px, py, margin = 0) {
    return (
      px >= this.x - margin && px <= this.x + this.w + margin && py >= this.y - margin && py <= this.y + this.h + margin
    );
  }
}

// Round numbers between low and high, about `count` of them.
export function ticks(low, high, count = 5) {
  const raw = (high - low) / count,
    power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((c) => c * power).find((c) => c >= raw * 0.999),
    out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + 1e-9 * step; v += step)
    out.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return out;
}

const plain = (v) => String(Number(v.toPrecision(6))).replace("-", "−");

// Quiet axes: ticks and names outside the frame, no box.
export function axes(pen, frame, {x = "", y = "", xTicks, yTicks, xFormat = plain, yFormat = plain, size = 11} = {}) {
  const columns = xTicks ?? ticks(frame.x0, frame.x1, Math.max(2, frame.w / 90)),
    foot = frame.y + frame.h;
  const rows = yTicks ?? ticks(frame.y0, frame.y1, Math.max(2, frame.h / 60));
  for (const v of columns) {
    pen.line(
      [
        [frame.X(v), foot],
        [frame.X(v), foot + 4],
      ],
      {colour: pen.rule},
    );
    pen.text(xFormat(v), frame.X(v), foot + 16, {size, align: "center"});
  }
  for (const v of rows) {
    pen.line(
      [
        [frame.x - 4, frame.Y(v)],
        [frame.x, frame.Y(v)],
      ],
      {colour: pen.rule},
    );
    pen.text(yFormat(v), frame.x - 7, frame.Y(v), {size, align: "right", base: "middle"});
  }
  if (x) pen.text(x, frame.x + frame.w / 2, foot + 31, {size: size + 1, align: "center"});
  if (y) pen.text(y, frame.x - 34, frame.y + frame.h / 2, {size: size + 1, align: "center", turn: -Math.PI / 2});
}

// Powers of ten and their labels for a logarithmic axis whose coordinates are log10.
export const decades = (low, high) =>
  ticks(Math.ceil(low), Math.floor(high), Math.min(6, Math.max(1, high - low))).filter((v) => Number.isInteger(v));

const UP = {
  "0": "⁰",
  "1": "¹",
  "2": "²",
  "3": "³",
  "4": "⁴",
  "5": "⁵",
  "6": "⁶",
  "7": "⁷",
  "8": "⁸",
  "9": "⁹",
  "-": "⁻",
};
export const power10 = (v) => (v >= 0 && v < 4 ? String(10 ** v) : "10" + [...String(v)].map((c) => UP[c]).join(""));
