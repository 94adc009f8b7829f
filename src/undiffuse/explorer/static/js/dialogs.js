// What opens over the page: scenes, keys, the scene in Python, the numbers as a table.
import {copy, el} from "./dom.js";
import {PRESETS} from "./presets.js";
import {codeOf} from "./python.js";
import {parse} from "./state.js";

const SHORTCUTS = [
  ["space", "play and pause"],
  ["← →", "one step back, one step forward"],
  ["[ ]", "half or twice as many steps"],
  ["R", "new seed"],
  ["1 … 9", "the views"],
  ["S", "scenes"],
  ["P", "this scene in Python"],
  ["T", "the numbers as a table"],
  ["?", "this list"],
  ["arrow keys on a handle", "move the handle; with Shift, ten times as far"],
];

function ask(app, title, ...children) {
  app.dialog.replaceChildren(
    el("h2", {id: "dialog-title", text: title}),
    ...children,
    el("form", {method: "dialog"}, el("button", {text: "Close"})),
  );
  app.dialog.showModal();
}

export function showScenes(app) {
  ask(
    app,
    "Ten scenes",
    el(
      "ul",
      {className: "scenes"},
      ...PRESETS.map(([name, summary, hash]) =>
        el(
          "li",
          {},
          el(
            "button",
            {
              type: "button",
              onclick: () => {
                app.dialog.close();
                app.enter(parse(hash).state);
                app.remember(true);
              },
            },
            el("strong", {text: name}),
            el("span", {text: summary}),
          ),
        ),
      ),
    ),
  );
}

export function showHelp(app) {
  ask(
    app,
    "Keyboard",
    el(
      "dl",
      {className: "keys"},
      ...SHORTCUTS.flatMap(([key, words]) => [el("dt", {text: key}), el("dd", {text: words})]),
    ),
  );
}

export function showPython(app) {
  const code = codeOf(app.state),
    done = el("span", {role: "status"});
  ask(
    app,
    "This scene in Python",
    el("pre", {"tabindex": 0, "role": "region", "aria-label": "Python code"}, el("code", {text: code})),
    el(
      "p",
      {},
      el("button", {
        type: "button",
        text: "Copy",
        onclick: () =>
          copy(code).then(() => {
            done.textContent = " Copied.";
          }),
      }),
      done,
    ),
  );
}

export function showTable(app) {
  const {head, rows} = app.view.rows(),
    shown = rows.slice(0, 200);
  ask(
    app,
    "The numbers of this picture",
    el(
      "div",
      {"className": "table", "tabindex": 0, "role": "region", "aria-label": "Table of numbers"},
      el(
        "table",
        {},
        el("thead", {}, el("tr", {}, ...head.map((text) => el("th", {scope: "col", text})))),
        el(
          "tbody",
          {},
          ...shown.map((row) =>
            el("tr", {}, ...row.map((v) => el("td", {text: typeof v === "number" ? Number(v.toPrecision(6)) : v}))),
          ),
        ),
      ),
    ),
    el("p", {
      text: rows.length > shown.length ? `The first ${shown.length} of ${rows.length} rows.` : `${rows.length} rows.`,
    }),
  );
}
