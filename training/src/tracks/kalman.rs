//! The Kalman filter of one box: centre x, centre y, aspect w/h, height, each with its velocity.
//!
//! Comes in: measured boxes. Goes out: filtered and predicted ones. Constant velocity, one step a frame, f64, with the noise of
//! ByteTrack's filter (reference.md §3.2). All its matrices are diagonal in the four quantities, so that the filter falls apart into four
//! of two states (value, velocity) each: the same numbers without a matrix. SORT's filter is made of the same [`Axis`]. Nothing is
//! associated here.

use super::assign::Xyxy;

/// Standard deviation of a position, as a share of the height.
const POSITION: f64 = 1.0 / 20.0;
/// Of a velocity.
const VELOCITY: f64 = 1.0 / 160.0;

/// A box as the filter sees it: centre x, centre y, w/h, h.
pub type Measurement = [f64; 4];

/// Mean and covariance of one quantity and its velocity.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Axis {
    /// Believed value.
    pub value: f64,
    /// Believed change in a frame.
    pub velocity: f64,
    /// Variance of the value, covariance, variance of the velocity.
    covariance: [f64; 3],
}

impl Axis {
    /// A first measurement, at rest, with the variances of value and velocity.
    pub fn new(value: f64, variances: [f64; 2]) -> Self {
        Self { value, velocity: 0.0, covariance: [variances[0], 0.0, variances[1]] }
    }

    /// One frame on, with the variances that the step adds to value and velocity.
    pub fn predict(&mut self, noise: [f64; 2]) {
        let [value, both, speed] = self.covariance;
        self.value += self.velocity;
        self.covariance = [value + 2.0 * both + speed + noise[0], both + speed, speed + noise[1]];
    }

    /// Takes in a measurement of this variance.
    pub fn update(&mut self, measured: f64, variance: f64) {
        let [value, both, speed] = self.covariance;
        let expected = value + variance;
        let gain = [value / expected, both / expected];
        let surprise = measured - self.value;
        self.value += gain[0] * surprise;
        self.velocity += gain[1] * surprise;
        self.covariance = [
            value - gain[0] * expected * gain[0],
            both - gain[0] * expected * gain[1],
            speed - gain[1] * expected * gain[1],
        ];
    }
}

/// What is believed of a box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kalman {
    axes: [Axis; 4],
}

/// The four variances of one kind, from deviations that are shares of the height but for the aspect's.
fn variances(height: f64, share: f64, aspect: f64) -> [f64; 4] {
    let (size, aspect) = ((share * height) * (share * height), aspect * aspect);
    [size, size, aspect, size]
}

/// A box as it is measured.
pub fn measured(xyxy: &Xyxy) -> Measurement {
    let [left, top, right, bottom] = *xyxy;
    let (width, height) = (right - left, bottom - top);
    [left + width / 2.0, top + height / 2.0, width / height, height]
}

impl Kalman {
    /// From a first measurement, at rest.
    pub fn new(z: Measurement) -> Self {
        let position = variances(z[3], 2.0 * POSITION, 1e-2);
        let velocity = variances(z[3], 10.0 * VELOCITY, 1e-5);
        Self { axes: std::array::from_fn(|i| Axis::new(z[i], [position[i], velocity[i]])) }
    }

    /// One frame on. The process noise is that of the height before the step.
    pub fn predict(&mut self) {
        let height = self.axes[3].value;
        let (position, velocity) = (variances(height, POSITION, 1e-2), variances(height, VELOCITY, 1e-5));
        for (i, axis) in self.axes.iter_mut().enumerate() {
            axis.predict([position[i], velocity[i]]);
        }
    }

    /// Takes in a measurement.
    pub fn update(&mut self, z: Measurement) {
        let noise = variances(self.axes[3].value, POSITION, 1e-1);
        for (i, axis) in self.axes.iter_mut().enumerate() {
            axis.update(z[i], noise[i]);
        }
    }

    /// Lets the height rest: what is out of sight is not believed to grow.
    pub fn rest_height(&mut self) {
        self.axes[3].velocity = 0.0;
    }

    /// The believed box: centre x, centre y, w/h, h.
    pub fn measurement(&self) -> Measurement {
        self.axes.map(|axis| axis.value)
    }

    /// The believed box: left, top, width, height.
    pub fn tlwh(&self) -> [f64; 4] {
        let [x, y, aspect, height] = self.measurement();
        let width = aspect * height;
        [x - width / 2.0, y - height / 2.0, width, height]
    }

    /// The believed box: left, top, right, bottom.
    pub fn xyxy(&self) -> Xyxy {
        let [left, top, width, height] = self.tlwh();
        [left, top, left + width, top + height]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One init, predict, update of the original filter (tests/golden/bytetrack_golden.json).
    #[test]
    fn a_step_equals_the_originals() {
        let text = include_str!("../../../tests/golden/bytetrack_golden.json");
        let golden: serde_json::Value = serde_json::from_str(text).unwrap();
        let numbers = |key: &str| -> Vec<f64> {
            let list = golden["kalman"][key].as_array().unwrap();
            list.iter().map(|n| n.as_f64().unwrap()).collect()
        };
        let four = |v: &[f64]| -> Measurement { v[..4].try_into().unwrap() };
        let diagonal = |k: &Kalman| -> Vec<f64> {
            k.axes.iter().map(|a| a.covariance[0]).chain(k.axes.iter().map(|a| a.covariance[2])).collect()
        };
        let close = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| assert!((a - b).abs() <= 1e-12 * b.abs().max(1e-3), "{a} {b}"));
        };
        let mut filter = Kalman::new(four(&numbers("measurement")));
        close(&diagonal(&filter), &numbers("init_cov_diag"));
        filter.predict();
        close(&diagonal(&filter), &numbers("pred_cov_diag"));
        filter.update(four(&numbers("update_meas")));
        let mean: Vec<f64> =
            filter.measurement().into_iter().chain(filter.axes.iter().map(|a| a.velocity)).collect();
        close(&mean, &numbers("upd_mean"));
        close(&diagonal(&filter), &numbers("upd_cov_diag"));
        close(&filter.axes.map(|a| a.covariance[1]), &numbers("upd_cov_pos_vel"));
    }
}
