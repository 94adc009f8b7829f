// The controls of the law: which one it is, and one of its modes in numbers.
import {el} from "./dom.js";
import {menu} from "./menu.js";
import {WANTED} from "./state.js";
import {lawNames, lawTitle, parseLaw} from "./laws.js";
import {MOST_MODES, PARTS, editedMode, modeOf, withAnother, withMode, without} from "./modes.js";

export function lawControls(rail, c) {
  const names = WANTED[c.state.view].flatMap((d) => lawNames(d)).map((name) => [name, lawTitle(name), ""]);
  const own = c.state.law.startsWith("mix:") ? [[c.state.law, "Custom mixture", ""]] : [];
  const parts = [menu(rail, c, [...names, ...own], (s) => (s.law.startsWith("mix:") ? s.law : s.law.split(":")[0]))];
  if (c.state.law.split(":")[0] === "points") {
    const width = {
      key: "width",
      label: "Width of a component",
      hint: "Near 0 the distribution is the set of training points: the sampler becomes a photocopier.",
    };
    parts.push(
      rail.slider(width, {
        low: 0.01,
        high: 0.6,
        step: 0.01,
        get: (s) => Number(s.law.split(":")[1] ?? 0.1),
        set: (v) => rail.app.set({law: `points:${v}`}),
      }),
    );
  }
  return parts;
}

// Which mode is edited, its numbers, and one more or one less.
export function modeControls(rail, c) {
  const law = () => parseLaw(rail.app.state.law),
    put = (text, edit) => rail.app.set({law: text, edit}),
    k = editedMode(c.state),
    options = [["0", "nothing", ""], ...Array.from({length: law().K}, (_, j) => [String(j + 1), `mode ${j + 1}`, ""])],
    get = (state) => String((editedMode(state) ?? -1) + 1),
    parts = [menu(rail, c, options, get, (v) => c.set(Number(v)))];
  if (k === null) return parts;
  for (const [key, label, low, high, step, hint] of PARTS) {
    parts.push(
      rail.slider(
        {key: `mode-${key}`, label, hint},
        {
          low,
          high,
          step,
          get: (state) => {
            const mode = editedMode(state);
            return mode === null ? 0 : Number(modeOf(parseLaw(state.law), mode)[key].toFixed(4));
          },
          set: (value) => put(withMode(law(), editedMode(rail.app.state), {[key]: value}), rail.app.state.edit),
          reset: false,
        },
      ),
    );
  }
  const more = el("button", {"type": "button", "className": "dice", "text": "Another mode", "disabled": law().K >= MOST_MODES,
    "onclick": () => put(withAnother(law()), law().K + 1)});
  const less = el("button", {"type": "button", "className": "dice", "text": "Remove this one", "disabled": law().K < 2,
    "onclick": () => put(without(law(), editedMode(rail.app.state)), 1)});
  parts.push(el("div", {className: "pair"}, more, less));
  return parts;
}
