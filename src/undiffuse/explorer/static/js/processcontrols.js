// The controls of the process, and of the panes that compare several.
import {menu} from "./menu.js";
import {FAULTS} from "./museum.js";
import {PROCESSES, formatProcess} from "./processes.js";

export function processControls(rail, c) {
  const parts = [
    menu(
      rail,
      c,
      Object.entries(PROCESSES).map(([name, [title]]) => [name, title, ""]),
      (s) => s.sde.split(":")[0],
    ),
  ];
  const [name] = c.state.sde.split(":"),
    [, params] = PROCESSES[name];
  params.forEach(([param, value, low, high], i) => {
    const get = (s) =>
      s.sde.startsWith(name) && s.sde.includes(":") ? Number(s.sde.split(":")[1].split(",")[i] ?? value) : value;
    const set = (v) => {
      const args = params.map(([, own], j) =>
        j === i ? v : Number(rail.app.state.sde.split(":")[1]?.split(",")[j] ?? own),
      );
      rail.app.set({
        sde: formatProcess(
          name,
          args.map((a) => Number(a.toPrecision(4))),
        ),
      });
    };
    parts.push(
      rail.slider(
        {
          key: param,
          label: param.replace("_min", " min").replace("_max", " max").replace("beta", "β").replace("sigma", "σ"),
          hint: `A parameter of the process, ${low} to ${high}.`,
        },
        {low, high, step: (high - low) / 200, get, set},
      ),
    );
  });
  return parts;
}

// One menu a pane, with the processes and the three dynamics that share their marginals.
export function paneControls(rail, c) {
  const dynamics = [
    ["~euler_maruyama~0", "ODE"],
    ["~euler_maruyama~1", "SDE"],
    ["~euler_maruyama~2", "SDE, twice the noise"],
  ];
  const faults = Object.entries(FAULTS).slice(1);
  const options = [
    ["", "nothing", ""],
    ...Object.entries(PROCESSES).map(([name, [title]]) => [name, title, "With the same sampler"]),
    ...dynamics.map(([tail, title]) => [`vp${tail}`, `VP, ${title}`, "With the same process"]),
    ...faults.map(([name, [title]]) => [`vp~euler_maruyama~1~${name}`, `VP, ${title}`, "With an error in the score"]),
  ];
  return [0, 1, 2, 3].map((i) => {
    const get = (s) => s.panes.split("|")[i] ?? "",
      here = get(c.state);
    const known = options.some(([value]) => value === here) ? options : [...options, [here, here, ""]];
    const set = (value) => {
      const panes = [0, 1, 2, 3]
        .map((j) => (j === i ? value : (rail.app.state.panes.split("|")[j] ?? "")))
        .filter(Boolean);
      if (panes.length) c.set(panes.join("|"));
    };
    return menu(rail, {...c, key: `pane${i}`, label: `Pane ${i + 1}`}, known, get, set);
  });
}
