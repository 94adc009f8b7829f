// The picture and its numbers as files.
import {download} from "./dom.js";
import {Pen} from "./pen.js";
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
