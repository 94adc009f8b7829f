// The page's answers to the cases of test_parity.py: `answers(model, cases)` gives one list of numbers for each.

const flat = (values) => Array.from(values, (v) => (typeof v === "number" ? v : flat(v))).flat();

function lawOf(model, {weights, means, covariances, labels}) {
  return new model.Mixture(weights, means.flat(), covariances.map((c) => c.flat()), means[0].length, labels);
}

// ∇·D from the divergence of the velocity, d σ'/σ + (α' − α σ'/σ) ∇·D.
function divergence(sde, values, t, d) {
  const [dalpha, dsigma] = sde.rates(t), rate = dsigma / sde.sigma(t);
  return values.map((v) => (v - d * rate) / (dalpha - sde.alpha(t) * rate));
}

const ANSWERS = {
  words(model, {seed, purpose, step, first, count}) {
    const halves = model.words(seed, purpose, step, first, count);
    return Array.from({length: count}, (_, i) => String((BigInt(halves[2 * i + 1]) << 32n) | BigInt(halves[2 * i])));
  },
  normal: (model, c) => flat(model.normal(c.seed, c.purpose, c.step, c.first, c.n, c.size)),
  uniform: (model, c) => flat(model.uniform(c.seed, c.purpose, c.step, c.first, c.n, c.size)),
  brownian: (model, c) => flat(model.brownian(c.n, c.steps, c.T, c.seed, c.refine, c.first)),
  motion(model, c) {
    const motion = new model.Motion(c.seed, c.first, c.n, c.size, c.start, c.end);
    return c.pairs.map(([t, s]) => flat(motion.increment(t, s))).flat();
  },
  process(model, c) {
    const sde = model.parseProcess(c.sde);
    return c.times.map((t) => [sde.alpha(t), sde.variance(t), sde.sigma(t), sde.f(t), sde.g2(t), sde.logSnr(t), ...sde.rates(t),
      sde.timeOf(sde.logSnr(t))]).flat();
  },
  law(model, c) {
    const law = lawOf(model, c.law), sde = model.parseProcess(c.sde), lens = law.at(sde.alpha(c.t), sde.variance(c.t));
    const x = Float64Array.from(c.x.flat()), n = c.x.length, rows = c.x.map((_, i) => i * law.d);
    return flat([rows.map((at) => lens.logProb(x, at)), rows.map((at) => lens.responsibilities(x, at)), lens.score(x, n), lens.denoise(x, n),
      lens.denoise(x, n, c.label), divergence(sde, model.divergences({sde, law}, x, n, c.t), c.t, law.d), rows.map((at) => lens.covariance(x, at).covariance), law.moments.mean, [law.deviation]]);
  },
  draws: (model, c) => flat(lawOf(model, c.law).sample(c.n, c.seed, c.first).x),
  posterior(model, c) {
    const law = lawOf(model, c.law).posterior(Float64Array.from(c.A.flat()), c.y, c.std);
    return flat([law.weights, law.means, ...Array.from({length: law.K}, (_, k) => law.covariance(k))]);
  },
  grid(model, c) {
    return model.timeGrid(model.parseProcess(c.sde), c.steps, c.grid, c.end, c.deviation);
  },
  run(model, c) {
    const exact = model.exactModel(lawOf(model, c.law), model.parseProcess(c.sde), c.label);
    const run = new model.Run(exact, {n: c.n, method: c.method, steps: c.steps, grid: c.grid, seed: c.seed, first: c.first, path: c.path, options: c.options});
    return [...flat(run.finish().x), run.calls];
  },
  forward(model, c) {
    const law = lawOf(model, c.law), sde = model.parseProcess(c.sde);
    return flat(model.simulate(sde, law.sample(c.n, c.seed).x, c.n, law.d, c.steps, c.seed).frames.at(-1));
  },
  code(model, c) {
    const {state} = model.parse(c.hash);
    return [model.codeOf(state)];
  },
};

export const answers = (model, cases) => cases.map((c) => ANSWERS[c.kind](model, c));
