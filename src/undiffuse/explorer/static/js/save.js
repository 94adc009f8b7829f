// The picture and its numbers as files.
import {download} from "./dom.js";
import {Pen} from "./pen.js";
import {gif} from "./gif.js";
import {format} from "./state.js";

// The picture with its sentence and its address underneath, `scale` times as large.
export function picture(app, scale) {
  const w = app.canvas.width / app.ratio,
    h = app.canvas.height / app.ratio,
    canvas = document.createElement("canvas");
  Object.assign(canvas, {width: w * scale, height: (h + 48) * scale});
  const ctx = canvas.getContext("2d");
  ctx.scale(scale, scale);
  const all = new Pen(ctx, w, h + 48, app.dark);
  all.clear();
  app.view.draw(new Pen(ctx, w, h, app.dark));
  all.text(shortened(all, app.view.sentence(), w - 24, 13), 12, h + 18, {size: 13, colour: all.ink});
  all.text(shortened(all, format(app.state), w - 24, 10), 12, h + 36, {size: 10});
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}

const FILM = {frames: 31, width: 560, delay: 8};

// The picture at times from one end to the other, in the direction of the scene, as a film.
export async function film(app) {
  const scale = Math.min(1, FILM.width / (app.canvas.width / app.ratio)),
    w = Math.round((app.canvas.width / app.ratio) * scale),
    h = Math.round((app.canvas.height / app.ratio) * scale),
    canvas = Object.assign(document.createElement("canvas"), {width: w, height: h}),
    ctx = canvas.getContext("2d", {willReadFrequently: true}),
    {view, state} = app,
    frames = [];
  ctx.scale(scale, scale);
  for (let i = 0; i < FILM.frames; i++) {
    const u = i / (FILM.frames - 1);
    view.state = {...state, t: state.dir === "forward" ? u : 1 - u};
    const pen = new Pen(ctx, w / scale, h / scale, app.dark);
    pen.clear();
    view.draw(pen);
    frames.push(ctx.getImageData(0, 0, w, h).data);
    view.state = app.state;
    await new Promise((next) => setTimeout(next));
  }
  app.dirty = true;
  return gif(frames, w, h, FILM.delay);
}

function shortened(pen, words, width, size) {
  let text = words;
  while (text.length > 8 && pen.width(text, size) > width) text = `${text.slice(0, -2)}…`.replace("……", "…");
  return text;
}

const field = (value) => (typeof value === "number" ? String(value) : `"${String(value).replaceAll('"', '""')}"`);

// Rows as text, numbers with all their digits.
export const csv = ({head, rows}) =>
  [head.map(field), ...rows.map((row) => [...row].map(field))].map((row) => row.join(",")).join("\n") + "\n";

export const saveText = (name, text) => download(name, new Blob([text], {type: "text/plain"}));
