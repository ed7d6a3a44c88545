//! How machines end, come back and stand still.

use std::sync::Arc;
use std::time::Duration;

use fusion_runtime::{Host, Tasks};

use super::{HostId, Life};
use crate::fabric::fault::{FaultError, Place};
use crate::fabric::world::World;

/// How often a crash lets the others run until the last task must have ended. A task ends at its
/// next poll; only one that never comes back to the runtime needs more.
const YIELDS_MAX: usize = 10_000;

impl World {
    /// Kills the machine's processes. Its kernel resets their connections and refuses new ones; its
    /// disk stays. Not to be called from the machine's own tasks.
    ///
    /// # Errors
    /// When there is no such machine.
    ///
    /// # Panics
    /// When a task of the machine does not end: it would be a leak.
    pub async fn crash(&self, name: &str) -> Result<(), FaultError> {
        self.take_down(self.find(name)?, Life::Crashed).await;
        Ok(())
    }

    /// Cuts the machine's power. Peers learn nothing until they send; its disk stays.
    ///
    /// # Errors
    /// When there is no such machine.
    ///
    /// # Panics
    /// When a task of the machine does not end: it would be a leak.
    pub async fn power_off(&self, name: &str) -> Result<(), FaultError> {
        self.take_down(self.find(name)?, Life::Off).await;
        Ok(())
    }

    /// Starts the machine again on its old disk, crashing it first when it is up, and boots it.
    ///
    /// # Errors
    /// When there is no such machine.
    pub async fn restart(&self, name: &str) -> Result<Host, FaultError> {
        Ok(self.bring_up(self.find(name)?).await)
    }

    /// Starts the machine again after a while, as a supervisor does whose process has ended, unless it is
    /// down or has begun another life by then. The machine's own tasks may ask for it.
    pub fn restart_in(&self, name: &str, after: Duration) {
        let (world, name) = (self.clone(), name.to_owned());
        let asked_of = self.machine(&name);
        self.shared.tasks().spawn(async move {
            world.clock().sleep(after).await;
            let same = |now: &Host| asked_of.is_some_and(|then| Arc::ptr_eq(&then.store, &now.store));
            if world.machine(&name).as_ref().is_some_and(same)
                && let Ok(id) = world.find(&name)
            {
                world.bring_up(id).await;
            }
        });
    }

    /// Stops the machine's processes as by SIGSTOP; its kernel goes on receiving into its buffers.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn pause(&self, name: &str) -> Result<(), FaultError> {
        let id = self.find(name)?;
        self.shared.lock().pause(id, None);
        Ok(())
    }

    /// Lets the machine's processes go on.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn resume(&self, name: &str) -> Result<(), FaultError> {
        let id = self.find(name)?;
        self.shared.lock().resume(id);
        Ok(())
    }

    /// Sets the machine's wall clock wrong by `us` microseconds.
    ///
    /// # Errors
    /// When there is no such machine.
    pub fn set_skew_us(&self, name: &str, us: i64) -> Result<(), FaultError> {
        let id = self.find(name)?;
        self.shared.lock().host(id).clock.set_skew_us(us);
        Ok(())
    }

    /// Ends the machine's life; says how many tasks that ended.
    pub(in crate::fabric) async fn take_down(&self, id: HostId, how: Life) -> usize {
        let tasks = {
            let mut state = self.shared.lock();
            if state.host(id).life != Life::Up {
                return 0;
            }
            let slot = state.host_mut(id);
            slot.life = how;
            slot.paused = None;
            slot.machine = None;
            slot.disk.cut();
            let tasks = slot.tasks.clone();
            state.sever(id, how);
            tasks
        };
        let alive = tasks.alive();
        end(&tasks).await;
        alive
    }

    /// Begins a new life of the machine.
    pub(in crate::fabric) async fn bring_up(&self, id: HostId) -> Host {
        self.take_down(id, Life::Crashed).await;
        let (machine, boot) = {
            let mut state = self.shared.lock();
            let slot = state.host_mut(id);
            slot.life = Life::Up;
            slot.incarnation += 1;
            slot.panics += std::mem::take(&mut slot.tasks).panics();
            (state.bear(id, &self.shared), state.host(id).boot.clone())
        };
        if let Some(boot) = boot {
            boot(machine.clone());
        }
        machine
    }

    fn find(&self, name: &str) -> Result<HostId, FaultError> {
        let state = self.shared.lock();
        let found = state.host_by_name.get(name).copied();
        found.ok_or_else(|| FaultError::NobodyThere(Place::Host(name.to_owned())))
    }
}

/// Ends `tasks` and waits until the last is gone.
pub(in crate::fabric) async fn end(tasks: &Tasks) {
    tasks.abort_all();
    yield_until(|| tasks.alive() == 0).await;
    assert_eq!(tasks.alive(), 0, "tasks outlived their machine");
}

/// Lets the others run until `done`, or for so long that it will never be.
pub(in crate::fabric) async fn yield_until(done: impl Fn() -> bool) {
    for _ in 0..YIELDS_MAX {
        if done() {
            return;
        }
        tokio::task::yield_now().await;
    }
}
