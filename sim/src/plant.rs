//! Planted bugs: deployments with one known thing wrong, by which the tools of the simulator are measured.
//!
//! A plan names the bug that it is played with; whoever plays it knows the bugs by name. This crate knows
//! none: they are in crates that no product is built from.

use fusion_deployment::Hooks;

use crate::plan::Plan;

/// A deployment with one thing wrong.
#[derive(Clone, Copy, Debug)]
pub struct Plant {
    /// Its name on the command line, such as `end-not-told`.
    pub name: &'static str,
    /// The requirement that it breaks, such as `LOC-008`.
    pub requirement: &'static str,
    /// What is wrong, in a sentence.
    pub wrong: &'static str,
    /// Whether it is set aside while judges are tuned, so that the score of detection stays honest.
    pub held_out: bool,
    /// Makes it.
    pub hooks: fn() -> Hooks,
}

/// How alike two names must be for one to be a slip of the other, of 1.
const ALIKE_MIN: f64 = 0.8;

/// The bugs that a program can plant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plants(pub &'static [Plant]);

/// A bug that the program does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no bug `{name}` can be planted{}", instead(*.nearest, *.has_any))]
pub struct UnknownPlant {
    name: String,
    nearest: Option<&'static str>,
    has_any: bool,
}

impl Plants {
    /// The bug of this name.
    ///
    /// # Errors
    /// When there is none; the error names one that is spelled like it.
    pub fn find(&self, name: &str) -> Result<&'static Plant, UnknownPlant> {
        self.0.iter().find(|plant| plant.name == name).ok_or_else(|| {
            let alike = |plant: &&Plant| strsim::jaro_winkler(plant.name, name);
            let nearest = self.0.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
            let nearest = nearest.filter(|plant| alike(plant) > ALIKE_MIN).map(|plant| plant.name);
            UnknownPlant { name: name.to_owned(), nearest, has_any: !self.0.is_empty() }
        })
    }

    /// What the deployment of `plan` does differently: nothing, where the plan names no bug.
    ///
    /// # Errors
    /// When it names one that is not known here.
    pub fn hooks(&self, plan: &Plan) -> Result<Hooks, UnknownPlant> {
        plan.planted.as_deref().map_or_else(|| Ok(Hooks::default()), |name| Ok((self.find(name)?.hooks)()))
    }
}

fn instead(nearest: Option<&str>, has_any: bool) -> String {
    match nearest {
        Some(name) => format!("; did you mean `{name}`?"),
        None if has_any => "; `detect --list` names them".to_owned(),
        None => ": this program has none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLANTS: Plants = Plants(&[Plant {
        name: "end-not-told",
        requirement: "LOC-008",
        wrong: "nobody is told that a call has ended",
        held_out: false,
        hooks: Hooks::default,
    }]);

    #[test]
    fn a_bug_that_is_not_known_is_answered_with_one_that_is_spelled_like_it() {
        assert_eq!(PLANTS.find("end-not-told").unwrap().requirement, "LOC-008");
        let unknown = PLANTS.find("end-not-tolt").unwrap_err();
        assert_eq!(unknown.to_string(), "no bug `end-not-tolt` can be planted; did you mean `end-not-told`?");
        let unlike = PLANTS.find("x").unwrap_err();
        assert_eq!(unlike.to_string(), "no bug `x` can be planted; `detect --list` names them");
        let none = Plants::default().find("x").unwrap_err();
        assert_eq!(none.to_string(), "no bug `x` can be planted: this program has none");
    }
}
