// What the script offers: the page, the worker, a widget's view, and the model layer for whoever wants to check it.
import {App} from "./app.js";
import {Cloud} from "./cloud.js";
import {Compare} from "./compare.js";
import {Digits} from "./digits.js";
import {Guidance} from "./guidance.js";
import {Lab} from "./lab.js";
import {Latent} from "./latent.js";
import {Own} from "./own.js";
import {Proof} from "./proof.js";
import {Question} from "./question.js";
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
import * as errors from "./errors.js";
import * as linalg from "./linalg.js";
import * as trainingOf from "./training.js";
import * as modes from "./modes.js";
import * as likelihood from "./likelihood.js";
import * as fokker from "./fokker.js";
import * as flows from "./flow.js";
import * as riverbed from "./riverbed.js";

export const model = {
  ...noise,
  ...processes,
  ...mixture,
  ...lawsOf,
  ...grid,
  ...steps,
  ...sampling,
  ...guide,
  ...metrics,
  ...state,
  ...scene,
  ...python,
  ...presets,
  ...linalg,
  ...fokker,
  ...likelihood,
  ...modes,
  ...trainingOf,
  ...flows,
  ...riverbed,
  ...errors,
};

const VIEWS = {
  river: River,
  cloud: Cloud,
  compare: Compare,
  lab: Lab,
  guidance: Guidance,
  question: Question,
  digits: Digits,
  latent: Latent,
  proof: Proof,
};

// What Python has put into the page: {laws, digits, training, scenes}.
export function carry({laws, digits, training, scenes}) {
  setLaws(laws, digits);
  trainingOf.setTraining(training);
  presets.setScenes(scenes);
}

// The page inside `root`, with such data.
export function page(root, data, options = {}) {
  carry(data);
  root.classList.add("explorer");
  root.classList.toggle("embedded", Boolean(options.embed));
  return new App(root, options.own ? {...VIEWS, own: Own} : VIEWS, {...options, data});
}

// The worker's part: measure what is asked for and report every point.
export function work(scope) {
  scope.onmessage = ({data: {state, laws}}) => {
    setLaws(laws, "");
    for (const point of errors.measured(state)) scope.postMessage(point);
    scope.postMessage({done: true});
  };
}
