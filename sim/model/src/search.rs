//! Searches a model with stateright, breadth first and with one thread, so that the first story found for a
//! property is a shortest one.
//!
//! stateright keeps a 64-bit fingerprint of each world, not the world: two worlds of the same fingerprint
//! would be taken for one. With a million worlds the chance of any such pair is below one in ten million.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use stateright::{Checker as _, HasDiscoveries, Model as _};

use crate::model::{Kind, Model, Property, Sort};
use crate::report::{Judged, Report, Trace, Verdict};

/// How many properties a model can have: each needs a function of its own.
const PROPERTIES_MAX: usize = 12;
/// How often whoever waits is told how far the search is.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// When to give up.
#[derive(Clone, Debug)]
pub struct Limits {
    /// After about so many worlds, repeated ones included.
    pub states_max: usize,
    /// As soon as this is set.
    pub stop: Arc<AtomicBool>,
}

/// Visits every world of a model, or until the first violation; `tell` hears of the worlds so far, now and
/// then.
///
/// # Panics
/// When the model has more than 12 properties, or one of its functions panics.
pub fn search<M: Model>(model: M, limits: &Limits, mut tell: impl FnMut(usize, usize)) -> Report {
    let (bounds, started) = (model.bounds(), stopwatch());
    let searched = Searched::new(model, limits.stop.clone());
    let checker = searched
        .checker()
        .threads(1)
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(limits.states_max)
        .spawn_bfs();
    let mut checker = checker;
    let handles = checker.handles();
    while handles.iter().any(|handle| !handle.is_finished()) {
        tell(checker.state_count(), checker.unique_state_count());
        wait();
    }
    let died = handles.into_iter().any(|handle| handle.join().is_err());
    assert!(!died, "the search has died: see above");
    let searched = checker.model();
    let stopped = checker.state_count() >= limits.states_max || limits.stop.load(Ordering::Relaxed);
    let steps = searched.counts();
    let mut stories = checker.discoveries();
    let failed = searched.properties.iter().enumerate().any(|(place, property)| {
        property.kind != Kind::Sometimes && searched.found[place].load(Ordering::Relaxed)
    });
    let judged = searched.properties.iter().enumerate().map(|(place, property)| {
        let story = stories.remove(NAMES[place]).map(|path| searched.trace(path.into_vec()));
        let verdict = match (property.kind, story.is_some()) {
            (Kind::Sometimes, true) => Verdict::Seen,
            (_, true) => Verdict::Violated,
            (_, false) if stopped || failed => Verdict::Open,
            (Kind::Sometimes, false) => Verdict::NeverSeen,
            (_, false) => Verdict::Holds,
        };
        Judged { kind: property.kind, words: property.words, verdict, story }
    });
    Report {
        worlds: checker.unique_state_count(),
        transitions: checker.state_count(),
        depth: checker.max_depth(),
        whole: !stopped && !failed,
        properties: judged.collect(),
        elapsed: started(),
        missing: missing(searched.model.needs(), &steps),
        steps,
        bounds,
    }
}

/// What should have happened, and did not.
fn missing(needs: &[Sort], steps: &[(Sort, u64)]) -> Vec<Sort> {
    let counted = |sort: &Sort| steps.iter().any(|(other, count)| other == sort && *count > 0);
    needs.iter().copied().filter(|sort| !counted(sort)).collect()
}

/// A model as stateright wants it.
struct Searched<M: Model> {
    model: M,
    properties: Vec<Property<M>>,
    /// Which properties have a story: stateright keeps the last one, so only the first is told.
    found: [AtomicBool; PROPERTIES_MAX],
    counts: [AtomicU64; Sort::ALL.len()],
    stop: Arc<AtomicBool>,
}

/// stateright knows properties by name; ours are told by sentence.
const NAMES: [&str; PROPERTIES_MAX] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];

type Condition<M> = fn(&Searched<M>, &<M as Model>::World) -> bool;

impl<M: Model> stateright::Model for Searched<M> {
    type State = M::World;
    type Action = M::Step;

    fn init_states(&self) -> Vec<M::World> {
        self.model.starts()
    }

    fn actions(&self, world: &M::World, actions: &mut Vec<M::Step>) {
        actions.extend(self.model.steps(world));
    }

    fn next_state(&self, world: &M::World, step: M::Step) -> Option<M::World> {
        self.counts[M::sort(&step) as usize].fetch_add(1, Ordering::Relaxed);
        Some(self.model.after(world, &step))
    }

    fn properties(&self) -> Vec<stateright::Property<Self>> {
        let named = self.properties.iter().zip(NAMES).zip(conditions());
        let each = |((property, name), condition): ((&Property<M>, _), _)| match property.kind {
            Kind::Always | Kind::Eventually => stateright::Property::always(name, condition),
            Kind::Sometimes => stateright::Property::sometimes(name, condition),
        };
        named.map(each).collect()
    }

    fn within_boundary(&self, _: &M::World) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }
}

impl<M: Model> Searched<M> {
    fn new(model: M, stop: Arc<AtomicBool>) -> Self {
        let properties = model.properties();
        assert!(properties.len() <= PROPERTIES_MAX, "a model has at most {PROPERTIES_MAX} properties");
        Self { model, properties, found: Default::default(), counts: Default::default(), stop }
    }

    /// What stateright asks of the property at `place`: only its first story counts.
    fn judge(&self, place: usize, world: &M::World) -> bool {
        let property = &self.properties[place];
        let looked_for = property.kind == Kind::Sometimes;
        if self.found[place].load(Ordering::Relaxed) {
            return !looked_for;
        }
        let so = (property.so)(&self.model, world);
        if so == looked_for {
            self.found[place].store(true, Ordering::Relaxed);
        }
        so
    }

    fn counts(&self) -> Vec<(Sort, u64)> {
        Sort::ALL.into_iter().map(|sort| (sort, self.counts[sort as usize].load(Ordering::Relaxed))).collect()
    }

    fn trace(&self, path: Vec<(M::World, Option<M::Step>)>) -> Trace {
        let mut known = Vec::new();
        let mut news = |world: &M::World| {
            let shown = self.model.show(world);
            let new = shown.iter().filter(|line| !known.contains(*line)).cloned().collect();
            known = shown;
            new
        };
        let mut trace = Trace::default();
        let mut step = None;
        for (world, next) in path {
            let now = news(&world);
            match step.replace(next) {
                Some(Some(taken)) => trace.steps.push((format!("{taken}"), now)),
                Some(None) | None => trace.start = now,
            }
        }
        trace
    }
}

/// A function for each property: stateright takes bare functions, which remember nothing.
fn conditions<M: Model>() -> [Condition<M>; PROPERTIES_MAX] {
    fn judge<M: Model, const PLACE: usize>(searched: &Searched<M>, world: &M::World) -> bool {
        searched.judge(PLACE, world)
    }
    [
        judge::<M, 0>,
        judge::<M, 1>,
        judge::<M, 2>,
        judge::<M, 3>,
        judge::<M, 4>,
        judge::<M, 5>,
        judge::<M, 6>,
        judge::<M, 7>,
        judge::<M, 8>,
        judge::<M, 9>,
        judge::<M, 10>,
        judge::<M, 11>,
    ]
}

/// Wall time of a report: nothing that is judged depends on it.
#[expect(clippy::disallowed_methods, reason = "wall time of reports, outside of every world")]
fn stopwatch() -> impl Fn() -> Duration {
    let started = std::time::Instant::now();
    move || started.elapsed()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the launcher's thread waits for the search, outside of every world"
)]
fn wait() {
    std::thread::sleep(TELL_EVERY);
}
