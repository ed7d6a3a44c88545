//! Real clusters on the simulated network, with people whose devices stay connected.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fusion_conformance::{Admin, Device, Target};
use fusion_deployment::{Addressing, Hooks, Topology, assemble};
use fusion_history::Recorder;
use fusion_protocol::{Address, ClusterName};
use fusion_runtime::Entropy;
use fusion_sim::engines::evidence::Evidence;
use fusion_sim::engines::fabric::FabricStage;
use fusion_sim::fabric::{World, WorldOptions};
use fusion_sim::stage::Stage as _;
use fusion_sim::target_of;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};
use serde_json::json;

use super::{Federation, Shown};
use crate::measure::{Meter, resident_kb};

/// How long clusters are left alone until they know the domain map.
const WARM_UP: Duration = Duration::from_secs(5);
/// How many clusters get their people at a time.
const AT_ONCE: usize = 20;

/// A federation whose clusters have so many connected devices each lives for a while.
pub(super) fn live(federation: Federation, devices: usize, seconds: u64) -> Result<Shown> {
    let meter = Meter::start();
    let Federation { clusters, .. } = federation;
    let federation = assemble(&topology(federation)?, Addressing::Simulated, &Entropy::from_u64(1))?;
    let evidence = Arc::new(Evidence::new(&federation, false));
    let world = World::with(1, WorldOptions::default(), evidence.clone());
    let stage = FabricStage::new(world.clone(), federation, evidence, Hooks::default());
    let target = Arc::new(target_of(stage.federation()));
    world.run(async {
        stage.start();
        stage.clock().sleep(WARM_UP).await;
        let settling = (0..clusters).map(|number| settle(&stage, &target, number, devices));
        let people: Vec<Vec<Device>> =
            futures_util::stream::iter(settling).buffered(AT_ONCE).try_collect().await?;
        let before_s = meter.elapsed().wall_s;
        let meter = Meter::start();
        stage.clock().sleep(Duration::from_secs(seconds)).await;
        let cost = meter.elapsed();
        let connected = people.iter().flatten().filter(|device| device.is_ready()).count();
        anyhow::ensure!(connected == clusters * devices, "only {connected} devices are still connected");
        anyhow::ensure!(world.panics() == 0, "a service panicked");
        let effort = world.effort();
        Ok(Shown {
            cost,
            before_s,
            work: connected as u64,
            events: effort.polls() + effort.packets(),
            resident_kb: resident_kb(std::process::id())?,
        })
    })
}

/// The people of one cluster come: each with a device on a machine of its own.
async fn settle(
    stage: &FabricStage,
    target: &Arc<Target>,
    number: usize,
    devices: usize,
) -> Result<Vec<Device>> {
    if devices == 0 {
        return Ok(Vec::new());
    }
    let (cluster, nobody): (ClusterName, _) = (name(number).parse()?, Recorder::with_budget(0));
    let office = stage.device_host(&format!("office{number}"));
    let admin = Admin::new(office, target.clone(), cluster, &format!("admin{number}"), nobody.clone())?;
    let mut people = Vec::new();
    for user in 0..devices {
        let address: Address = format!("user{user}@{}", domain(number)).parse()?;
        admin.provision(&address, None).await?;
        let place = format!("{}/phone", address.as_str());
        let host = stage.device_host(&place);
        let device = Device::new(host, target.clone(), address, &place, nobody.clone());
        device.connect().await?;
        people.push(device);
    }
    Ok(people)
}

/// A cluster for each org; the first is the consumer org, and the last have no domain.
fn topology(federation: Federation) -> Result<Topology> {
    let orgs: Vec<_> = (0..federation.clusters)
        .map(|number| {
            let role = if number == 0 { "consumer" } else { "private" };
            json!({
                "name": format!("org{number}"),
                "role": role,
                "domains": if number < federation.domains { vec![domain(number)] } else { vec![] },
                "clusters": [{ "name": name(number), "relays": 0 }],
            })
        })
        .collect();
    Ok(serde_json::from_value(json!({ "orgs": orgs }))?)
}

fn name(number: usize) -> String {
    format!("c{number}")
}

fn domain(number: usize) -> String {
    format!("org{number}.example")
}
