// The rail of controls: native elements with a label, a number box, a reset and a line that says what it does.
import {button, el} from "./dom.js";
import {lawControls, modeControls} from "./lawcontrols.js";
import {menu} from "./menu.js";
import {paneControls, processControls} from "./processcontrols.js";
import {FIELDS, WANTED, defaults} from "./state.js";
import {lawDimension, parseLaw} from "./laws.js";
import {LABELS} from "./labels.js";
import {pointsOf} from "./points.js";
import {MOST_MODES, editedMode} from "./modes.js";

const HAS_ETA = new Set(["euler_maruyama", "ancestral", "dpmpp_2m_sde"]);

// Controls that would do nothing are not shown.
function needed(key, state) {
  if (state.view === "digits" && state.mode === "complete")
    return !["label", "p", "w", "h", "near"].includes(key) && (key !== "eta" || HAS_ETA.has(state.method));
  if (state.view === "digits" && key === "std") return false;
  if (key === "eta") return HAS_ETA.has(state.method) && state.dir === "reverse";
  if (key === "r" || key === "corr") return state.method === "predictor_corrector" && state.dir === "reverse";
  if (["method", "grid", "path", "score"].includes(key)) return state.dir === "reverse";
  if (key === "edit") return parseLaw(state.law).K <= MOST_MODES;
  if (key === "zeta") return state.answers.includes("dps");
  return true;
}

export class Rail {
  constructor(app) {
    this.app = app;
    this.root = el("form", {
      "className": "rail",
      "aria-label": "Settings",
      "onsubmit": (event) => event.preventDefault(),
    });
  }

  // The controls of a view; rebuilt when the set of them changes, else only their values.
  show(state, keys) {
    const shown = keys.filter((key) => needed(key, state)),
      shape = [shown, state.view, state.sde.split(":")[0], lawShape(state)].join();
    if (shape !== this.shape) {
      const focused = document.activeElement?.id;
      this.shape = shape;
      this.updates = [];
      this.root.replaceChildren(...shown.flatMap((key) => this.control(key, state)));
      if (focused) document.getElementById(focused)?.focus();
    }
    this.updates.forEach((update) => update(state));
  }

  control(key, state) {
    const [label, hint, kind, extra] = LABELS[key];
    return KINDS[kind](this, {key, label, hint, extra, state, set: (value) => this.app.set({[key]: value})});
  }

  // A labelled row; `update` runs whenever the state changes.
  row({key, label, hint}, inputs, update, labelled = true) {
    this.updates.push(update);
    const id = `c-${key}`,
      name = labelled ? el("label", {htmlFor: id, text: label}) : el("span", {text: label, id: `${id}-name`});
    return el(
      "div",
      {className: "control"},
      el("div", {className: "name"}, name, ...inputs.slice(1)),
      inputs[0],
      el("small", {className: "hint", id: `${id}-hint`, text: hint}),
    );
  }

  // A slider with a number box; `read` and `write` go between the slider's places and values.
  slider(
    c,
    {
      low,
      high,
      step,
      read = (v) => v,
      write = (v) => v,
      get = (s) => s[c.key],
      set = c.set,
      least = low,
      most = high,
      whole = false,
      reset: canReset = true,
    },
  ) {
    const id = `c-${c.key}`,
      fit = (v) => Math.min(most, Math.max(least, whole ? Math.round(v) : v));
    const range = el("input", {
      "type": "range",
      id,
      "min": low,
      "max": high,
      step,
      "aria-describedby": `${id}-hint`,
      "oninput": () => set(fit(write(Number(range.value)))),
    });
    const box = el("input", {
      "type": "number",
      "min": least,
      "max": most,
      "step": whole ? 1 : "any",
      "aria-label": `${c.label}, exact value`,
      "onchange": () => (Number.isFinite(box.valueAsNumber) ? set(fit(box.valueAsNumber)) : this.app.refresh()),
    });
    const reset = button("↺", `Reset ${c.label}`, () => set(get(defaults(this.app.state.view))), {className: "reset"});
    return this.row(c, [range, reset, box], (state) => {
      const value = get(state);
      range.value = read(value);
      range.setAttribute("aria-valuetext", `${c.label} ${short(value)}`);
      if (document.activeElement !== box) box.value = short(value);
      reset.style.visibility = !canReset || value === get(defaults(state.view)) ? "hidden" : "visible";
    });
  }
}

const short = (value) => String(Number(value.toPrecision(5)));
const lawShape = (state) =>
  WANTED[state.view]
    ? `${lawDimension(state.law)},${parseLaw(state.law).classes},${state.law.startsWith("mix:")},${editedMode(state) === null ? "" : parseLaw(state.law).K},${state.law.split(":")[0] === "points"}`
    : "";

const KINDS = {
  choice: (rail, c) => [menu(rail, c, c.extra)],
  slider: (rail, c) => [
    rail.slider(c, {
      low: FIELDS[c.key].low,
      high: FIELDS[c.key].high,
      step: c.extra,
      whole: FIELDS[c.key].kind === "whole",
    }),
  ],
  powers: (rail, c) => [
    rail.slider(c, {
      low: 0,
      high: 10,
      step: 1,
      least: 1,
      most: 1024,
      whole: true,
      read: Math.log2,
      write: (v) => 2 ** v,
    }),
  ],
  log: (rail, c) => {
    const most = c.state.view === "digits" ? 36 : 20000;
    return [
      rail.slider(c, {
        low: 0,
        high: Math.log10(most),
        step: 0.05,
        least: 1,
        most,
        whole: true,
        read: Math.log10,
        write: (v) => Number((10 ** v).toPrecision(v > 2 ? 2 : 1)),
      }),
    ];
  },
  flag: (rail, c) => {
    const box = el("input", {
      "type": "checkbox",
      "id": `c-${c.key}`,
      "aria-describedby": `c-${c.key}-hint`,
      "onchange": () => c.set(box.checked),
    });
    rail.updates.push((state) => {
      box.checked = state[c.key];
    });
    return [
      el(
        "div",
        {className: "control flag"},
        box,
        el("label", {htmlFor: `c-${c.key}`, text: c.label}),
        el("small", {className: "hint", id: `c-${c.key}-hint`, text: c.hint}),
      ),
    ];
  },
  seed: (rail, c) => {
    const box = el("input", {
      "type": "number",
      "id": "c-seed",
      "min": 0,
      "max": 2 ** 32 - 1,
      "step": 1,
      "aria-describedby": "c-seed-hint",
      "onchange": () => c.set(Math.min(2 ** 32 - 1, Math.max(0, Math.round(box.valueAsNumber) || 0))),
    });
    const dice = button("New", "New seed", () => rail.app.newSeed(), {className: "dice"});
    return [
      rail.row(c, [el("div", {className: "pair"}, box, dice)], (state) => {
        if (document.activeElement !== box) box.value = state.seed;
      }),
    ];
  },
  law: lawControls,
  process: processControls,
  ticks(rail, c) {
    const boxes = c.extra.map(([value, text]) => {
      const box = el("input", {
        type: "checkbox",
        id: `c-${c.key}-${value}`,
        onchange: () => {
          const now = new Set(rail.app.state[c.key]);
          if (box.checked) now.add(value);
          else now.delete(value);
          c.set(c.extra.map(([name]) => name).filter((name) => now.has(name)));
        },
      });
      rail.updates.push((state) => {
        box.checked = state[c.key].includes(value);
      });
      return el("span", {className: "tick"}, box, el("label", {htmlFor: box.id, text}));
    });
    const group = el("div", {"className": "ticks", "role": "group", "aria-labelledby": `c-${c.key}-name`}, ...boxes);
    return [rail.row(c, [group], () => {}, false)];
  },
  classes(rail, c) {
    const law = c.state.view === "digits" ? null : parseLaw(c.state.law),
      n = law ? Math.max(1, law.classes) : 10;
    return [
      menu(
        rail,
        c,
        Array.from({length: n}, (_, k) => [String(k), law ? `class ${k + 1}` : `the digit ${k}`, ""]),
        (s) => String(s.label),
        (v) => c.set(Number(v)),
      ),
    ];
  },
  others(rail, c) {
    const n = parseLaw(c.state.law).classes;
    return [
      menu(rail, c, [["all", "all data", ""], ...Array.from({length: n}, (_, k) => [String(k), `class ${k + 1}`, ""])]),
    ];
  },
  point: (rail, c) => {
    const boxes = [0, 1].map((j) =>
      el("input", {
        "type": "number",
        "step": "any",
        "min": -6,
        "max": 6,
        "id": j ? null : `c-${c.key}`,
        "aria-label": `${c.label}, x${"₁₂"[j]}`,
        "aria-describedby": `c-${c.key}-hint`,
        "onchange": () => c.set(boxes.map((box) => Math.min(6, Math.max(-6, box.valueAsNumber || 0))).join()),
      }),
    );
    return [
      rail.row(c, [el("div", {className: "pair"}, ...boxes)], (state) => {
        const point = pointsOf(state, parseLaw(state.law))["ab".indexOf(c.key)];
        boxes.forEach((box, j) => {
          if (document.activeElement !== box) box.value = short(point[j]);
        });
      }),
    ];
  },
  panes: paneControls,
  modes: modeControls,
};
