//! What admins do in a story: give somebody an account, and claim a domain.

use fusion_conformance::{Admin, Device};
use fusion_protocol::{ClusterName, Domain};

use super::acts::persistent;
use super::cast::{Cast, Player};
use crate::scenario::Step;

impl Cast<'_> {
    /// MAP-004: the admin of a cluster gives the user's address an account there; the device then logs in
    /// as whoever that is.
    pub(super) async fn provision_in_story(&self, step: &Step, player: &Player, device: &Device, at: &str) {
        let Ok(cluster) = at.parse::<ClusterName>() else { return };
        let Some(admin) = self.admin(step, &cluster) else { return };
        let user = device.user();
        if persistent(device, async || admin.provision(user, None).await).await.is_ok() {
            let _ = persistent(device, async || player.device.connect().await).await;
        }
    }

    /// MAP-007: the admin of the cluster that the user is at.
    pub(super) async fn move_user(&self, step: &Step, device: &Device, to: &str) {
        let (Some(home), Ok(to)) = (device.home(), to.parse::<ClusterName>()) else { return };
        let Some(admin) = self.admin(step, &home) else { return };
        let _ = persistent(device, async || admin.move_user(device.user(), &to).await).await;
    }

    /// MAP-002: the admin of the user's org claims a domain for all clusters of the org.
    pub(super) async fn claim(&self, step: &Step, device: &Device, domain: &Domain) {
        let federation = self.stage.federation();
        let home = crate::scenario::user_named(&self.plan.topology, &step.user).map(|user| &user.cluster);
        let Some((home, org)) = home.and_then(|home| Some((home, federation.topology.org_of(home)?))) else {
            return;
        };
        let (Some(admin), Some(keys)) = (self.admin(step, home), federation.keys.get(&org.name)) else {
            return;
        };
        let clusters = org.cluster_names();
        let _ = persistent(device, async || {
            admin.claim(domain, &clusters, &keys.provider_secret).await.map(drop)
        })
        .await;
    }

    fn admin(&self, step: &Step, cluster: &ClusterName) -> Option<Admin> {
        let name = format!("admin-{cluster}");
        let host = self.stage.device_host(&format!("{name}/{}", step.id));
        let recorder = self.stage.recorder().clone();
        let admin = Admin::new(host, self.target.clone(), cluster.clone(), &name, recorder).ok()?;
        Some(admin.named(&step.id))
    }
}
