// Errors against evaluations: every sampler at 2, 4, 8, ... steps, one point at a time so that a worker can report.
import {METHODS} from "./steps.js";
import {Run, exactModel} from "./sampling.js";
import {parseLaw} from "./laws.js";
import {parseProcess} from "./processes.js";
import {gridOf, optionsOf} from "./scene.js";
import {owners, quantiles, slicedW2, w1, weightError} from "./metrics.js";

const SIZES = [2, 4, 8, 16, 32, 64, 128, 256],
  FINE = 2048,
  REPEATS = 3;

// The median distance between the points of two clouds: a path that ends in another mode does not drown the others.
function typicalGap(a, b, d) {
  const gaps = Float64Array.from({length: a.length / d}, (_, i) => {
    let sum = 0;
    for (let j = i * d; j < (i + 1) * d; j++) sum += (a[j] - b[j]) ** 2;
    return Math.sqrt(sum);
  }).sort();
  return gaps[gaps.length >> 1];
}

// A sampler's run to its end; path noise where a finer run is to follow the same path.
function end(state, model, method, steps, {n, seed, path}) {
  return new Run(model, {
    n,
    method,
    steps,
    grid: gridOf(state, method),
    seed,
    path,
    options: optionsOf(state, method),
    keep: false,
  }).finish();
}

// How far the ends are from the law: W₁, sliced W₂ or the weights of the modes.
function distanceTo(law, measure, n) {
  if (measure === "weights") return (x) => weightError(law, owners(law, x, n, 1, 1e-6));
  if (law.d === 1) {
    const wanted = quantiles(law, n);
    return (x) => w1(x, wanted);
  }
  const {x: own} = law.sample(n, 4242);
  return (x) => slicedW2(x, own, 2, 24);
}

// Yields {floor} once, then {method, steps, calls, error, spread} for every sampler, coarse ones first.
export function* measured(state) {
  const law = parseLaw(state.law),
    model = exactModel(law, parseProcess(state.sde));
  if (state.measure === "path") yield* pathErrors(state, model);
  else yield* lawErrors(state, law, model);
}

function* pathErrors(state, model) {
  const n = Math.min(state.p, 101),
    references = new Map();
  for (const steps of SIZES) {
    for (const method of state.solvers) {
      const noisy = METHODS[method].sde && (optionsOf(state, method).eta ?? 1) > 0,
        key = noisy ? method : "flow";
      if (!references.has(key)) {
        references.set(
          key,
          end(state, model, noisy ? method : "rk4", noisy ? FINE : 400, {n, seed: state.seed, path: noisy}).x,
        );
      }
      const run = end(state, model, method, steps, {n, seed: state.seed, path: noisy});
      yield {method, steps, calls: run.calls, error: typicalGap(run.x, references.get(key), model.d), spread: 0};
    }
  }
}

function* lawErrors(state, law, model) {
  const n = Math.min(state.p, 2000),
    distance = distanceTo(law, state.measure, n);
  const perfect = Array.from({length: 8}, (_, r) => distance(law.sample(n, 977, r * n).x));
  yield {floor: moments(perfect)};
  for (const steps of SIZES) {
    for (const method of state.solvers) {
      const runs = Array.from({length: REPEATS}, (_, r) =>
        end(state, model, method, steps, {n, seed: state.seed + r, path: false}),
      );
      const {mean, std} = moments(runs.map((run) => distance(run.x)));
      yield {method, steps, calls: runs[0].calls, error: mean, spread: std};
    }
  }
}

function moments(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return {mean, std: Math.sqrt(values.reduce((s, v) => s + (v - mean) ** 2, 0) / (values.length - 1))};
}

// The slope of log error over log evaluations through the last points that are above rounding.
export function slopeOf(points) {
  const usable = points.filter(({error}) => error > 1e-11).slice(-3);
  if (usable.length < 2) return null;
  const a = usable[0],
    b = usable.at(-1);
  return Math.log(a.error / b.error) / Math.log(b.calls / a.calls);
}
