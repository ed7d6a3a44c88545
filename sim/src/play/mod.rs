//! Plays a plan on a stage: set up, act under faults, heal, read what is left, look for leaks.
//!
//! The same play on every engine. Nothing here judges: everything observed goes into the history.

mod acts;
mod admins;
mod cast;
mod finale;
mod hostile;

use std::collections::BTreeMap;
use std::sync::Arc;

use fusion_conformance::Target;
use fusion_history::event::{FaultPhase, Phase, World, WorldCluster, WorldUser};
use fusion_history::{Body, EventId};
use fusion_runtime::Latch;
use futures_util::future::join_all;

use crate::plan::{Plan, PlannedFault};
use crate::scenario::{Start, Step};
use crate::stage::Stage;
use cast::Cast;

/// Why a play could not begin.
#[derive(Debug, thiserror::Error)]
pub enum PlayError {
    /// A fault cannot be expressed on this engine, or cannot be.
    #[error("fault \"{fault}\": {why}")]
    Fault {
        /// The fault's id in the plan.
        fault: String,
        /// Why.
        why: String,
    },
    /// Users could not be set up although nothing was wrong yet.
    #[error("setting up {who} failed: {why}")]
    SetUp {
        /// Who.
        who: String,
        /// Why.
        why: String,
    },
}

/// Plays `plan` on `stage`; `target` is the federation as its clients know it.
///
/// # Errors
/// When the play could not begin: nothing has been judged then.
pub async fn play(plan: &Plan, stage: &dyn Stage, target: Arc<Target>) -> Result<(), PlayError> {
    let play = Play { plan, stage, cast: Cast::gather(plan, stage, target) };
    play.record("engine", Body::World(world(stage)));
    play.enter(Phase::SetUp);
    play.cast.set_up().await?;
    play.enter(Phase::Act);
    play.act().await?;
    play.enter(Phase::Heal);
    stage.heal().await;
    stage.clock().sleep(plan.settle).await;
    play.enter(Phase::Quiescent);
    finale::read_everything(&play.cast).await;
    play.enter(Phase::End);
    finale::search(&play);
    finale::search_logs(&play);
    finale::relay_accounts(&play);
    play.cast.leave().await;
    Ok(())
}

struct Play<'a> {
    plan: &'a Plan,
    stage: &'a dyn Stage,
    cast: Cast<'a>,
}

/// Tells, for each step, when it has ended.
type Ended = BTreeMap<String, Latch>;

impl Play<'_> {
    fn record(&self, host: &str, body: Body) -> EventId {
        self.stage.recorder().record(self.stage.clock().now(), host, None, body)
    }

    fn enter(&self, phase: Phase) {
        self.record("engine", Body::Phase { phase });
    }

    /// Steps and faults, each at its time, until all steps have ended and the act is over.
    async fn act(&self) -> Result<(), PlayError> {
        let ended: Ended = self.plan.steps.iter().map(|step| (step.id.clone(), Latch::new())).collect();
        let begins = self.stage.clock().now();
        let steps = join_all(self.plan.steps.iter().map(|step| self.step(step, &ended, begins)));
        let faults = join_all(self.plan.faults.iter().map(|fault| self.fault(fault, &ended, begins)));
        let act = self.stage.clock().sleep(self.plan.act);
        let (_, faults, ()) = futures_util::future::join3(steps, faults, act).await;
        faults.into_iter().collect()
    }

    async fn step(&self, step: &Step, ended: &Ended, begins: std::time::Duration) {
        self.wait(&step.start, ended, begins).await;
        self.cast.act(step).await;
        ended[&step.id].open();
    }

    async fn fault(
        &self,
        fault: &PlannedFault,
        ended: &Ended,
        begins: std::time::Duration,
    ) -> Result<(), PlayError> {
        self.wait(&fault.start, ended, begins).await;
        let injected = self.stage.begin(&fault.fault).await;
        let injected = injected.map_err(|why| PlayError::Fault { fault: fault.id.clone(), why })?;
        let began = self.record("engine", fault_event(fault, FaultPhase::Began));
        self.stage.clock().sleep(fault.lasts).await;
        self.stage.end(injected).await;
        let clock = self.stage.clock();
        let over = fault_event(fault, FaultPhase::Ended);
        self.stage.recorder().record(clock.now(), "engine", Some(began), over);
        Ok(())
    }

    async fn wait(&self, start: &Start, ended: &Ended, begins: std::time::Duration) {
        let clock = self.stage.clock();
        match start {
            Start::At(at) => clock.sleep_until(begins + *at).await,
            Start::After { steps, delay } => {
                for step in steps {
                    ended[step].opened().await;
                }
                clock.sleep(*delay).await;
            }
        }
    }
}

fn fault_event(fault: &PlannedFault, phase: FaultPhase) -> Body {
    Body::Fault {
        fault: fault.id.clone(),
        family: fault.fault.family().to_owned(),
        phase,
        detail: serde_json::to_value(&fault.fault).unwrap_or_default(),
    }
}

fn world(stage: &dyn Stage) -> World {
    let federation = stage.federation();
    let topology = &federation.topology;
    let hosts_of = |cluster: &fusion_protocol::ClusterName| {
        let hosts = federation.hosts.iter().filter(|host| host.cluster() == Some(cluster));
        hosts.map(|host| host.name.clone()).collect::<Vec<_>>()
    };
    let cluster = |org: &str, cluster: &fusion_deployment::topology::ClusterSpec| WorldCluster {
        name: cluster.name.clone(),
        org: org.to_owned(),
        data_center: cluster.data_center().to_owned(),
        hosts: hosts_of(&cluster.name),
        overflow: cluster.overflow.clone(),
    };
    let claimed =
        topology.orgs.iter().filter(|org| org.role == fusion_deployment::topology::OrgRole::Private);
    World {
        engine: stage.engine().to_owned(),
        provider: Some(topology.provider.clone()),
        template: topology.template.clone(),
        clusters: topology
            .clusters()
            .map(|(org, spec)| {
                let consumer = org.role == fusion_deployment::topology::OrgRole::Consumer;
                cluster(if consumer { "consumer" } else { &org.name }, spec)
            })
            .collect(),
        domains: claimed
            .flat_map(|org| org.domains.iter().map(|domain| (domain.clone(), org.name.clone())))
            .collect(),
        users: topology
            .users
            .iter()
            .map(|user| WorldUser { user: user.address.clone(), cluster: user.cluster.clone() })
            .collect(),
        provider_hosts: federation
            .hosts
            .iter()
            .filter(|host| host.cluster().is_none())
            .map(|host| host.name.clone())
            .collect(),
    }
}
