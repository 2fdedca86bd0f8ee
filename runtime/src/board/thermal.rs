//! Thermal zones: what they are called, how hot each is, and from where on clocks are slowed.
//!
//! Comes in: a root folder. Goes out: its zones, listed once, and what each says whenever it is asked. A zone
//! without a name is left out, and one that always says the same. Nothing is judged here.

use super::{Root, parse};

/// A zone of some boards that always says 100 degrees.
const CONSTANT: &str = "PMIC-Die";
/// More zones than any board has.
const MOST: usize = 64;

/// A thermal zone.
#[derive(Clone, Debug)]
pub struct ThermalZone {
    /// What is measured there.
    pub name: String,
    folder: String,
}

impl ThermalZone {
    /// All of them.
    pub fn all(root: &Root) -> Vec<Self> {
        let folders = root.paths("sys/class/thermal", "thermal_zone").into_iter();
        let zones =
            folders.filter_map(|folder| Some(Self { name: root.line(&format!("{folder}/type"))?, folder }));
        zones.filter(|zone| zone.name != CONSTANT).take(MOST).collect()
    }

    /// Degrees Celsius now; none where the part is switched off.
    pub fn celsius(&self, root: &Root) -> Option<f64> {
        parse::celsius(&root.text(&format!("{}/temp", self.folder))?)
    }

    /// The least of its points at which clocks are slowed, degrees Celsius; fans and the emergency stop have
    /// points of their own.
    pub fn throttle(&self, root: &Root) -> Option<f64> {
        let at = |file: String| root.text(&format!("{}/{file}", self.folder));
        let points = (0..16).map_while(|n| {
            let kind = at(format!("trip_point_{n}_type"))?;
            let celsius = parse::celsius(&at(format!("trip_point_{n}_temp"))?);
            Some((kind.trim() == "passive").then_some(celsius).flatten())
        });
        points.flatten().filter(|celsius| *celsius > 0.0).min_by(f64::total_cmp)
    }
}
