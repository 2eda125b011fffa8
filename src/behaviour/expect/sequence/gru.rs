//! A gated recurrent unit (Cho et al. 2014, with the reset gate after the product as in Chung et al. 2014), its gradient
//! and Adam (Kingma, Ba 2015). A few thousand weights, plain loops over 32-bit floats in one order: the same bits on one
//! machine whenever it runs, and no thread or library behind it.
//!
//! Matrices are stored by input, so that the inner loops run over outputs and nothing is summed across lanes.

use rand_core::Rng;
use rand_pcg::Pcg32;

/// Inputs, units, outputs.
pub(super) const INPUTS: usize = 16;
pub(super) const UNITS: usize = 24;
pub(super) const OUTPUTS: usize = 17;

const GATES: usize = 3 * UNITS;
/// Where each part of the weights begins.
const INPUT: usize = 0;
const STATE: usize = INPUT + INPUTS * GATES;
const BIAS: usize = STATE + UNITS * GATES;
const STATE_BIAS: usize = BIAS + GATES;
const OUTPUT: usize = STATE_BIAS + UNITS;
const OUTPUT_BIAS: usize = OUTPUT + UNITS * OUTPUTS;
const WEIGHTS: usize = OUTPUT_BIAS + OUTPUTS;

/// Adam: step, memories of the mean and of the square, and the longest gradient.
const RATE: f32 = 3e-3;
const MEAN_KEPT: f32 = 0.9;
const SQUARE_KEPT: f32 = 0.999;
const LONGEST: f32 = 1.0;

pub(super) type Input = [f32; INPUTS];
pub(super) type State = [f32; UNITS];
pub(super) type Output = [f32; OUTPUTS];

/// The weights.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Gru {
    weights: Vec<f32>,
}

/// What a step leaves for the gradient.
#[derive(Clone, Debug)]
pub(super) struct Step {
    input: Input,
    before: State,
    reset: State,
    update: State,
    /// The state's part of the candidate, before the reset gate.
    recalled: State,
    candidate: State,
    pub(super) state: State,
}

/// Sums of gradients over steps.
#[derive(Clone, Debug)]
pub(super) struct Gradient {
    sums: Vec<f32>,
}

/// Memory of the optimiser.
#[derive(Clone, Debug)]
pub(super) struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

impl Gru {
    /// Small random weights; outputs begin at zero.
    pub(super) fn new(dice: &mut Pcg32) -> Self {
        let scale = (1.0 / UNITS as f32).sqrt();
        let mut weights = vec![0.0; WEIGHTS];
        for weight in &mut weights[..BIAS] {
            *weight = (dice.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0) * scale;
        }
        // Long memory at first: the update gate keeps.
        weights[BIAS + UNITS..BIAS + 2 * UNITS].fill(1.0);
        Self { weights }
    }

    pub(super) fn step(&self, input: &Input, before: &State) -> Step {
        let w = &self.weights;
        let mut sums: [f32; GATES] = std::array::from_fn(|at| w[BIAS + at]);
        for (at, x) in input.iter().enumerate() {
            add(&mut sums, &w[INPUT + at * GATES..][..GATES], *x);
        }
        let mut ofstate = [0.0; GATES];
        for (at, h) in before.iter().enumerate() {
            add(&mut ofstate, &w[STATE + at * GATES..][..GATES], *h);
        }
        let reset: State = std::array::from_fn(|i| sigmoid(sums[i] + ofstate[i]));
        let update: State = std::array::from_fn(|i| sigmoid(sums[UNITS + i] + ofstate[UNITS + i]));
        let recalled: State = std::array::from_fn(|i| ofstate[2 * UNITS + i] + w[STATE_BIAS + i]);
        let candidate: State = std::array::from_fn(|i| (sums[2 * UNITS + i] + reset[i] * recalled[i]).tanh());
        let state = std::array::from_fn(|i| (1.0 - update[i]) * candidate[i] + update[i] * before[i]);
        Step { input: *input, before: *before, reset, update, recalled, candidate, state }
    }

    pub(super) fn output(&self, state: &State) -> Output {
        let w = &self.weights;
        let mut output: Output = std::array::from_fn(|at| w[OUTPUT_BIAS + at]);
        for (at, h) in state.iter().enumerate() {
            add(&mut output, &w[OUTPUT + at * OUTPUTS..][..OUTPUTS], *h);
        }
        output
    }

    /// Adds the gradient of a sequence, given that of its outputs, back through time.
    pub(super) fn backward(&self, steps: &[Step], outputs: &[Output], gradient: &mut Gradient) {
        let (w, g) = (&self.weights, &mut gradient.sums);
        let mut later: State = [0.0; UNITS];
        for (step, out) in steps.iter().zip(outputs).rev() {
            add(&mut g[OUTPUT_BIAS..][..OUTPUTS], out, 1.0);
            for i in 0..UNITS {
                add(&mut g[OUTPUT + i * OUTPUTS..][..OUTPUTS], out, step.state[i]);
                later[i] += dot(&w[OUTPUT + i * OUTPUTS..][..OUTPUTS], out);
            }
            later = back(w, g, step, &later);
        }
    }
}

/// One step back; returns the gradient of the state before.
fn back(w: &[f32], g: &mut [f32], step: &Step, later: &State) -> State {
    let (mut sums, mut ofstate) = ([0.0; GATES], [0.0; GATES]);
    let mut before = [0.0; UNITS];
    for i in 0..UNITS {
        let (r, u, n) = (step.reset[i], step.update[i], step.candidate[i]);
        let candidate = later[i] * (1.0 - u) * (1.0 - n * n);
        sums[i] = candidate * step.recalled[i] * r * (1.0 - r);
        sums[UNITS + i] = later[i] * (step.before[i] - n) * u * (1.0 - u);
        sums[2 * UNITS + i] = candidate;
        (ofstate[i], ofstate[UNITS + i], ofstate[2 * UNITS + i]) = (sums[i], sums[UNITS + i], candidate * r);
        before[i] = later[i] * u;
    }
    add(&mut g[BIAS..][..GATES], &sums, 1.0);
    add(&mut g[STATE_BIAS..][..UNITS], &ofstate[2 * UNITS..], 1.0);
    for (at, x) in step.input.iter().enumerate() {
        add(&mut g[INPUT + at * GATES..][..GATES], &sums, *x);
    }
    for i in 0..UNITS {
        add(&mut g[STATE + i * GATES..][..GATES], &ofstate, step.before[i]);
        before[i] += dot(&w[STATE + i * GATES..][..GATES], &ofstate);
    }
    before
}

impl Gradient {
    pub(super) fn new() -> Self {
        Self { sums: vec![0.0; WEIGHTS] }
    }

    pub(super) fn clear(&mut self) {
        self.sums.fill(0.0);
    }
}

impl Adam {
    pub(super) fn new() -> Self {
        Self { mean: vec![0.0; WEIGHTS], square: vec![0.0; WEIGHTS], steps: 0 }
    }

    /// A step against the gradient, which is of so many samples.
    pub(super) fn descend(&mut self, gru: &mut Gru, gradient: &Gradient, samples: f32) {
        self.steps += 1;
        let length = dot(&gradient.sums, &gradient.sums).sqrt() / samples;
        let scale = (LONGEST / length.max(LONGEST)) / samples;
        let [mean, square] = [MEAN_KEPT, SQUARE_KEPT].map(|kept| 1.0 - kept.powi(self.steps));
        for (at, g) in gradient.sums.iter().enumerate() {
            let g = g * scale;
            self.mean[at] += (1.0 - MEAN_KEPT) * (g - self.mean[at]);
            self.square[at] += (1.0 - SQUARE_KEPT) * (g * g - self.square[at]);
            gru.weights[at] -= RATE * (self.mean[at] / mean) / ((self.square[at] / square).sqrt() + 1e-8);
        }
    }
}

fn add(sums: &mut [f32], row: &[f32], times: f32) {
    sums.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight * times);
}

/// In eight lanes, always the same way.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        lanes.iter_mut().zip(a.iter().zip(b)).for_each(|(lane, (a, b))| *lane += a * b);
    }
    lanes.iter().sum::<f32>() + rest
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(dice: &mut Pcg32) -> Vec<Input> {
        (0..5).map(|_| std::array::from_fn(|_| dice.next_u32() as f32 / u32::MAX as f32 * 2.0 - 1.0)).collect()
    }

    /// Half the sum of squares of all outputs.
    fn loss(gru: &Gru, inputs: &[Input]) -> f64 {
        let mut state = [0.0; UNITS];
        let mut sum = 0.0;
        for input in inputs {
            state = gru.step(input, &state).state;
            sum += gru.output(&state).iter().map(|y| f64::from(*y).powi(2) / 2.0).sum::<f64>();
        }
        sum
    }

    fn gradient(gru: &Gru, inputs: &[Input]) -> Gradient {
        let mut steps: Vec<Step> = Vec::new();
        for input in inputs {
            let before = steps.last().map_or([0.0; UNITS], |step| step.state);
            steps.push(gru.step(input, &before));
        }
        let outputs: Vec<Output> = steps.iter().map(|step| gru.output(&step.state)).collect();
        let mut gradient = Gradient::new();
        gru.backward(&steps, &outputs, &mut gradient);
        gradient
    }

    #[test]
    fn the_gradient_is_that_of_finite_differences() {
        let mut dice = Pcg32::new(7, 1);
        let mut gru = Gru::new(&mut dice);
        gru.weights[OUTPUT..].iter_mut().for_each(|w| *w = dice.next_u32() as f32 / u32::MAX as f32 - 0.5);
        let inputs = inputs(&mut dice);
        let analytic = gradient(&gru, &inputs);
        for at in (0..WEIGHTS).step_by(37) {
            let nudged = |by: f32| {
                let mut gru = gru.clone();
                gru.weights[at] += by;
                loss(&gru, &inputs)
            };
            let measured = (nudged(1e-2) - nudged(-1e-2)) / 2e-2;
            let told = f64::from(analytic.sums[at]);
            assert!((told - measured).abs() < 2e-3 + 0.02 * measured.abs(), "{at}: {told} {measured}");
        }
    }

    #[test]
    fn descending_lessens_the_loss_and_a_seed_gives_the_same_weights() {
        let trained = |seed: u64| {
            let mut dice = Pcg32::new(seed, 1);
            let (mut gru, mut adam) = (Gru::new(&mut dice), Adam::new());
            gru.weights[OUTPUT_BIAS..].fill(0.7);
            let inputs = inputs(&mut dice);
            let before = loss(&gru, &inputs);
            for _ in 0..200 {
                let slope = gradient(&gru, &inputs);
                adam.descend(&mut gru, &slope, 1.0);
            }
            (before, loss(&gru, &inputs), gru)
        };
        let (before, after, gru) = trained(3);
        assert!(after < before / 20.0, "{before} {after}");
        assert!(gru == trained(3).2 && gru != trained(4).2);
    }
}
