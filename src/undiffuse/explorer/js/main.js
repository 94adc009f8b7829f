// What the script offers: the page, the worker, a widget's view, and the model layer for whoever wants to check it.
import {App} from "./app.js";
import {Cloud} from "./cloud.js";
import {Compare} from "./compare.js";
import {River} from "./river.js";
import {setLaws} from "./laws.js";
import * as noise from "./noise.js";
import * as processes from "./processes.js";
import * as mixture from "./mixture.js";
import * as lawsOf from "./laws.js";
import * as grid from "./grid.js";
import * as steps from "./steps.js";
import * as sampling from "./sampling.js";
import * as guide from "./guide.js";
import * as metrics from "./metrics.js";
import * as state from "./state.js";
import * as scene from "./scene.js";
import * as python from "./python.js";
import * as presets from "./presets.js";
import * as linalg from "./linalg.js";

export const model = {...noise, ...processes, ...mixture, ...lawsOf, ...grid, ...steps, ...sampling, ...guide, ...metrics, ...state,
  ...scene, ...python, ...presets, ...linalg};

// The page inside `root`; `data` is what Python has put into it: {laws, digits}.
export function page(root, data, options = {}) {
  setLaws(data.laws, data.digits);
  root.classList.add("explorer");
  root.classList.toggle("embedded", Boolean(options.embed));
  return new App(root, {river: River, cloud: Cloud, compare: Compare}, options);
}
