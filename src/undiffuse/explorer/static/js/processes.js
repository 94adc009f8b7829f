// Gaussian processes x_t = α(t) x_0 + σ(t) ε, as in processes.py: α and σ² with their derivatives, all else derived.

class Process {
  constructor(name, args, T, fns) {
    Object.assign(this, {name, args, T}, fns);
  }

  sigma(t) {
    return Math.sqrt(this.variance(t));
  }

  // λ = log(α/σ)
  logSnr(t) {
    return Math.log(this.alpha(t)) - 0.5 * Math.log(this.variance(t));
  }

  f(t) {
    return this.dalpha(t) / this.alpha(t);
  }

  // g² = (σ²)' − 2 f σ²
  g2(t) {
    return this.dvariance(t) - 2 * this.f(t) * this.variance(t);
  }

  // (α', σ')
  rates(t) {
    return [this.dalpha(t), this.dvariance(t) / (2 * this.sigma(t))];
  }

  timeOf(lambda) {
    return this.inverse ? this.inverse(lambda) : this.bisect(lambda);
  }

  bisect(lambda) {
    let low = 0,
      high = this.T;
    for (let i = 0; i < 100; i++) {
      const middle = (low + high) / 2;
      if (this.logSnr(middle) > lambda) low = middle;
      else high = middle;
    }
    return high;
  }

  node(t) {
    return {t, alpha: this.alpha(t), sigma: this.sigma(t), logSnr: this.logSnr(t)};
  }
}

const clip = (t, T) => Math.min(T, Math.max(0, t));
const softplus = (x) => (x > 700 ? x : Math.log1p(Math.exp(x)));
const sigmoid = (x) => 1 / (1 + Math.exp(-x));

function linearBeta(low, high) {
  const integral = (t) => low * t + ((high - low) * t * t) / 2,
    beta = (t) => low + (high - low) * t;
  const timeOfIntegral = (b) => {
    const B = Math.min(b, (low + high) / 2);
    return clip((2 * B) / (low + Math.sqrt(low * low + 2 * (high - low) * B)), 1);
  };
  const alpha = (t) => Math.exp(-0.5 * integral(t));
  return {integral, beta, timeOfIntegral, alpha, dalpha: (t) => -0.5 * beta(t) * alpha(t)};
}

function vp(low = 0.1, high = 20) {
  const {integral, beta, timeOfIntegral, alpha, dalpha} = linearBeta(low, high);
  return {
    alpha,
    dalpha,
    variance: (t) => -Math.expm1(-integral(t)),
    dvariance: (t) => beta(t) * Math.exp(-integral(t)),
    inverse: (l) => timeOfIntegral(softplus(-2 * l)),
  };
}

function subvp(low = 0.1, high = 20) {
  const {integral, beta, timeOfIntegral, alpha, dalpha} = linearBeta(low, high);
  return {
    alpha,
    dalpha,
    variance: (t) => Math.expm1(-integral(t)) ** 2,
    dvariance: (t) => -2 * Math.expm1(-integral(t)) * beta(t) * Math.exp(-integral(t)),
    inverse: (l) => timeOfIntegral(2 * Math.asinh(Math.exp(-l) / 2)),
  };
}

const exploding = {alpha: () => 1, dalpha: () => 0};

function ve(low = 0.01, high = 50) {
  const rate = 2 * Math.log(high / low),
    variance = (t) => low ** 2 * Math.exp(rate * t);
  return {
    ...exploding,
    variance,
    dvariance: (t) => rate * variance(t),
    inverse: (l) => clip((-2 * l - 2 * Math.log(low)) / rate, 1),
  };
}

function powerVe(base = 25) {
  const k = 2 * Math.log(base);
  return {
    ...exploding,
    variance: (t) => (k ? Math.expm1(k * t) / k : t),
    dvariance: (t) => Math.exp(k * t),
    inverse: (l) => clip(k ? Math.log1p(k * Math.exp(-2 * l)) / k : Math.exp(-2 * l), 1),
  };
}

function edm(last = 80) {
  return {...exploding, variance: (t) => t * t, dvariance: (t) => 2 * t, inverse: (l) => clip(Math.exp(-l), last)};
}

function cosine(offset = 0.008) {
  const start = ((Math.PI / 2) * offset) / (1 + offset),
    base = Math.cos(start),
    pace = Math.PI / 2 / (1 + offset);
  const turn = (t) => ((Math.PI / 2) * t) / (1 + offset);
  return {
    alpha: (t) => Math.sin(((Math.PI / 2) * (1 - t)) / (1 + offset)) / base,
    dalpha: (t) => (-pace * Math.cos(((Math.PI / 2) * (1 - t)) / (1 + offset))) / base,
    variance: (t) => (Math.sin(turn(t)) * Math.sin(turn(t) + 2 * start)) / base ** 2,
    dvariance: (t) => (pace * Math.sin(2 * turn(t) + 2 * start)) / base ** 2,
    inverse(l) {
      const alpha = Math.sqrt(sigmoid(2 * l)),
        t = 1 - ((2 * (1 + offset)) / Math.PI) * Math.asin(Math.min(1, alpha * base));
      return t > 0.1 ? t : this.bisect(l);
    },
  };
}

function rectifiedFlow() {
  return {
    alpha: (t) => 1 - t,
    dalpha: () => -1,
    variance: (t) => t * t,
    dvariance: (t) => 2 * t,
    inverse: (l) => sigmoid(-l),
  };
}

function ou(theta = 1, scale = Math.SQRT2) {
  const k = 2 * theta;
  return {
    alpha: (t) => Math.exp(-theta * t),
    dalpha: (t) => -theta * Math.exp(-theta * t),
    variance: (t) => (k ? (-scale * scale * Math.expm1(-k * t)) / k : scale * scale * t),
    dvariance: (t) => scale * scale * Math.exp(-k * t),
  };
}

// name: [what it is called, its parameters with [name, default, least, most], the class in Python, how it is made, T]
export const PROCESSES = {
  vp: [
    "Variance preserving (VP)",
    [
      ["beta_min", 0.1, 0.01, 1],
      ["beta_max", 20, 1, 30],
    ],
    "VP",
    vp,
    () => 1,
  ],
  subvp: [
    "Sub-VP",
    [
      ["beta_min", 0.1, 0.01, 1],
      ["beta_max", 20, 1, 30],
    ],
    "SubVP",
    subvp,
    () => 1,
  ],
  ve: [
    "Variance exploding (VE)",
    [
      ["sigma_min", 0.01, 0.001, 0.5],
      ["sigma_max", 50, 2, 100],
    ],
    "VE",
    ve,
    () => 1,
  ],
  power_ve: ["VE with g = λᵗ", [["rate", 25, 2, 100]], "PowerVE", powerVe, () => 1],
  edm: ["Noise level as time (EDM)", [["sigma_max", 80, 2, 100]], "EDM", edm, (last) => last],
  cosine: ["Cosine", [["offset", 0.008, 0, 0.1]], "Cosine", cosine, () => 1],
  rectified_flow: ["Straight path (rectified flow)", [], "RectifiedFlow", rectifiedFlow, () => 1],
  ou: [
    "Ornstein–Uhlenbeck",
    [
      ["theta", 1, 0.1, 3],
      ["scale", Math.SQRT2, 0.1, 3],
    ],
    "OU",
    ou,
    () => 5,
  ],
};

export function makeProcess(name, args = []) {
  const [, params, , make, end] = PROCESSES[name];
  const full = params.map(([, value], i) => args[i] ?? value);
  return new Process(name, full, end(...full), make(...full));
}

// "vp:0.1,20" and back.
export function parseProcess(text) {
  const [name, tail] = text.split(":");
  return makeProcess(name, tail ? tail.split(",").map(Number) : []);
}

export const formatProcess = (name, args) => (args.length ? `${name}:${args.join(",")}` : name);
