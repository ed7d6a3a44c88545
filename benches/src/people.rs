//! The users that a load is made with: provisioned, logged in, with devices, through the independent
//! client of the conformance suite.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use fusion_conformance::{Admin, Device, Target};
use fusion_history::Recorder;
use fusion_protocol::{Address, ClusterName};
use fusion_runtime::Host;
use futures_util::stream::{StreamExt as _, TryStreamExt as _};

/// How many are made at a time.
const AT_ONCE: usize = 32;

/// Who makes and plays users of one deployment.
#[derive(Clone)]
pub(crate) struct People {
    pub(crate) host: Host,
    pub(crate) target: Arc<Target>,
}

impl People {
    /// `count` users of `cluster`, each with a device that is logged in.
    pub(crate) async fn make(&self, cluster: &str, role: &str, count: usize) -> Result<Vec<Device>> {
        let cluster: ClusterName = cluster.parse()?;
        let (_, org) = self.target.org_of(&cluster).context("a cluster of nobody")?;
        let domain = org.domains.first().context("an org without a domain")?.clone();
        let admin = Admin::new(
            self.host.clone(),
            self.target.clone(),
            cluster,
            &format!("admin of {role}"),
            nobody(),
        )?;
        let users = (0..count).map(|number| {
            let (admin, domain) = (admin.clone(), domain.clone());
            async move {
                let address: Address = format!("{role}{number}@{domain}").parse()?;
                admin.provision(&address, Some(role)).await?;
                let device = self.device(&address, "0");
                device.log_in().await?;
                anyhow::Ok(device)
            }
        });
        futures_util::stream::iter(users).buffered(AT_ONCE).try_collect().await
    }

    /// Another device of a user.
    pub(crate) fn device(&self, user: &Address, name: &str) -> Device {
        let name = format!("{}/{name}", user.as_str());
        Device::new(self.host.clone(), self.target.clone(), user.clone(), &name, nobody())
    }
}

/// Nothing is written down: a load is measured, not judged.
fn nobody() -> Recorder {
    Recorder::with_budget(0)
}
