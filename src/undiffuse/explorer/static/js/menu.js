// A labelled menu of the rail; options are [value, words, the group it stands in].
import {el} from "./dom.js";

export function menu(rail, c, options, get = (s) => s[c.key], set = c.set) {
  const select = el("select", {
    "id": `c-${c.key}`,
    "aria-describedby": `c-${c.key}-hint`,
    "onchange": () => set(select.value),
  });
  const groups = new Map();
  for (const [value, text, group] of options) {
    if (group && !groups.has(group)) {
      groups.set(group, el("optgroup", {label: group}));
      select.append(groups.get(group));
    }
    (group ? groups.get(group) : select).append(el("option", {value, text}));
  }
  return rail.row(c, [select], (state) => {
    select.value = get(state);
  });
}
