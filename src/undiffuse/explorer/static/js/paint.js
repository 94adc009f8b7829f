// Exact densities as pictures: heat maps, contours at the levels that hold a given part of the mass, fields of arrows.
import {ramp} from "./pen.js";

// log p_t on a grid of nx by ny cell centres of a frame, row after row from the foot; `log(x, at)` at a point.
export function densityGrid(frame, nx, ny, log) {
  const out = new Float64Array(nx * ny),
    point = new Float64Array(2);
  for (let j = 0; j < ny; j++) {
    point[1] = frame.y0 + ((j + 0.5) / ny) * (frame.y1 - frame.y0);
    for (let i = 0; i < nx; i++) {
      point[0] = frame.x0 + ((i + 0.5) / nx) * (frame.x1 - frame.x0);
      out[j * nx + i] = log(point, 0);
    }
  }
  return {nx, ny, values: out};
}

const scratch = new Map();

function canvasOf(nx, ny) {
  const key = `${nx}x${ny}`;
  if (!scratch.has(key)) {
    const canvas = document.createElement("canvas");
    Object.assign(canvas, {width: nx, height: ny});
    scratch.set(key, {canvas, ctx: canvas.getContext("2d"), image: new ImageData(nx, ny)});
  }
  return scratch.get(key);
}

// A grid of log densities as smooth colours: (p/p_max)^gamma through the theme's ramp.
export function heat(pen, frame, {nx, ny, values}, gamma, top = values.reduce((a, b) => Math.max(a, b), -Infinity)) {
  const {canvas, ctx, image} = canvasOf(nx, ny),
    colours = (pen.rampOf ??= ramp(pen.heat)),
    {data} = image;
  for (let j = 0; j < ny; j++) {
    for (let i = 0; i < nx; i++) {
      const level = Math.min(255, 255 * Math.exp(gamma * (values[j * nx + i] - top))) | 0,
        at = 4 * ((ny - 1 - j) * nx + i);
      data[at] = colours[3 * level];
      data[at + 1] = colours[3 * level + 1];
      data[at + 2] = colours[3 * level + 2];
      data[at + 3] = 255;
    }
  }
  ctx.putImageData(image, 0, 0);
  pen.ctx.imageSmoothingEnabled = true;
  pen.ctx.imageSmoothingQuality = "medium";
  pen.ctx.drawImage(canvas, frame.x, frame.y, frame.w, frame.h);
}

// The log densities above which the given parts of the mass on the grid lie.
export function massLevels(values, parts) {
  const sorted = Float64Array.from(values).sort().reverse(),
    top = sorted[0];
  const total = sorted.reduce((sum, v) => sum + Math.exp(v - top), 0),
    found = [];
  let sum = 0,
    k = 0;
  for (const v of sorted) {
    sum += Math.exp(v - top);
    while (k < parts.length && sum >= parts[k] * total) {
      found.push(v);
      k++;
    }
  }
  return found;
}

// The line values = level through a grid, by marching squares, added to the path of a canvas.
function trace(ctx, frame, {nx, ny, values}, level) {
  const px = (i) => frame.x + ((i + 0.5) / nx) * frame.w,
    py = (j) => frame.y + frame.h - ((j + 0.5) / ny) * frame.h;
  for (let j = 0; j + 1 < ny; j++) {
    for (let i = 0; i + 1 < nx; i++) {
      const a = values[j * nx + i] - level,
        b = values[j * nx + i + 1] - level;
      const c = values[(j + 1) * nx + i + 1] - level,
        d = values[(j + 1) * nx + i] - level;
      if (a > 0 === b > 0 && b > 0 === c > 0 && c > 0 === d > 0) continue;
      const points = [];
      if (a > 0 !== b > 0) points.push(px(i + a / (a - b)), py(j));
      if (b > 0 !== c > 0) points.push(px(i + 1), py(j + b / (b - c)));
      if (c > 0 !== d > 0) points.push(px(i + d / (d - c)), py(j + 1));
      if (d > 0 !== a > 0) points.push(px(i), py(j + a / (a - d)));
      for (let k = 0; k + 3 < points.length; k += 4) {
        ctx.moveTo(points[k], points[k + 1]);
        ctx.lineTo(points[k + 2], points[k + 3]);
      }
    }
  }
}

// Lines through a grid at the given values.
export function isolines(pen, frame, grid, levels, {colour = pen.real, width = 1.2, dash = [], alpha = 0.9} = {}) {
  const {ctx} = pen;
  ctx.save();
  Object.assign(ctx, {strokeStyle: colour, lineWidth: width, globalAlpha: alpha});
  ctx.setLineDash(dash);
  ctx.beginPath();
  for (const level of levels) trace(ctx, frame, grid, level);
  ctx.stroke();
  ctx.restore();
}

export const contours = (pen, frame, grid, parts, style) =>
  isolines(pen, frame, grid, massLevels(grid.values, parts), style);

// Dots for particles (n, 2) seen through `place`, all of one colour or coloured by class.
export function dots(pen, frame, x, n, {colour = pen.made, size = 1.8, alpha = 0.75, classes = null} = {}) {
  const {ctx} = pen;
  ctx.save();
  ctx.globalAlpha = alpha;
  if (!classes) {
    ctx.fillStyle = colour;
    for (let i = 0; i < n; i++)
      ctx.fillRect(frame.X(x[2 * i]) - size, frame.Y(x[2 * i + 1]) - size, 2 * size, 2 * size);
  } else {
    for (let i = 0; i < n; i++) {
      const k = classes[i] % pen.modes.length;
      pen.mark(frame.X(x[2 * i]), frame.Y(x[2 * i + 1]), size * 1.25, k, pen.modes[k], alpha);
    }
  }
  ctx.restore();
}

// Arrows of a field on a lattice; `field` maps points (n, 2) to vectors (n, 2); the longest is one cell long.
export function arrows(pen, frame, field, across = 16) {
  const step = frame.w / across,
    down = Math.max(4, Math.round(frame.h / step)),
    n = across * down,
    points = new Float64Array(2 * n);
  for (let k = 0; k < n; k++) {
    const px = frame.x + ((k % across) + 0.5) * step,
      py = frame.y + ((Math.floor(k / across) + 0.5) * frame.h) / down;
    points.set(frame.at(px, py), 2 * k);
  }
  const v = field(points, n),
    lengths = Float64Array.from({length: n}, (_, k) => Math.hypot(v[2 * k], v[2 * k + 1]));
  const typical = Float64Array.from(lengths).sort()[Math.floor(0.8 * n)] || 1;
  for (let k = 0; k < n; k++) {
    const size = (step * 0.85 * Math.min(1, lengths[k] / typical)) / (lengths[k] || 1);
    pen.arrow(frame.X(points[2 * k]), frame.Y(points[2 * k + 1]), v[2 * k] * size, -v[2 * k + 1] * size, pen.ink, 0.6);
  }
}

// The silhouette of a density along one side of a frame; `turned` draws it along the vertical axis.
export function curve(points, frame) {
  return points.map(([x, y]) => [frame.X(x), frame.Y(y)]);
}

// Shares of the particles in `bins` equal cells between low and high, as a density.
export function histogram(x, low, high, bins) {
  const out = new Float64Array(bins),
    width = (high - low) / bins;
  for (const value of x) {
    const cell = Math.floor((value - low) / width);
    if (cell >= 0 && cell < bins) out[cell] += 1 / (x.length * width);
  }
  return out;
}
