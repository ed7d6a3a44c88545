//! A slow processor: the tasks of a machine wait for each other.

use std::sync::Arc;
use std::time::Duration;

use fusion_runtime::tasks::Busy;

use super::HostId;
use crate::fabric::world::{Shared, State};

impl State {
    /// Makes the machine's processor as slow as the active faults want it.
    pub(in crate::fabric) fn set_pace(&self, id: HostId, shared: &Arc<Shared>) {
        let slot = self.host(id);
        let busy = slot.slow_cpu.is_some().then(|| {
            let world = Arc::downgrade(shared);
            Box::new(move || world.upgrade().map_or(Duration::ZERO, |world| world.lock().take_turn(id)))
                as Busy
        });
        slot.tasks.slow_down(busy);
    }

    /// A task asks for the processor: says how long it waits for it and uses it.
    fn take_turn(&mut self, id: HostId) -> Duration {
        let now_us = self.now_us();
        let slot = self.host_mut(id);
        let Some((fault, turn_us)) = slot.slow_cpu else { return Duration::ZERO };
        slot.cpu_free_us = slot.cpu_free_us.max(now_us) + turn_us;
        let wait_us = slot.cpu_free_us - now_us;
        self.faults.took_effect(fault);
        Duration::from_micros(wait_us)
    }
}
