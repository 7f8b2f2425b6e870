//! Back to where rows start from.

use std::time::Duration;

use aya::maps::PerCpuValues;
use netfast_common::{control::Control, device::DeviceKey, reason::SLOTS};
use netfast_tests::scene::Dev;

use super::{DEVICE_SLOTS, EPOCH, Lab, clear};

impl Lab {
    /// Puts everything back to where rows start from: all devices accelerated, nothing learned.
    pub fn reset(&mut self) {
        let control = Control {
            epoch: EPOCH,
            switches: Control::USE | Control::LEARN,
            revalidate_ns: Duration::from_secs(1).as_nanos().try_into().expect("a second"),
            ..Control::default()
        };
        self.set_control(control);
        for dev in Dev::ALL {
            let index = self.ifindex(dev);
            if let Some(device) = dev.device() {
                self.devices
                    .insert(DeviceKey::new(self.netns, index), device, 0)
                    .expect("a device");
            }
            self.generations
                .set(dev.slot().into(), dev.generation(), 0)
                .expect("a generation");
        }
        clear(&mut self.flows);
        clear(&mut self.unreplied);
        clear(&mut self.vetted);
        self.tables6.iter_mut().for_each(clear);
        clear(&mut self.vetted6);
        while self.vet.next().is_some() {}
        self.edit_candidates(|all| all.waiting = 0);
        self.forget_seen();
        self.forget_ports();
    }

    /// Forgets services, members, what they were given, and connections.
    pub fn reset_vips(&mut self) {
        clear(&mut self.turns);
        clear(&mut self.vips);
        clear(&mut self.vip_slots);
        clear(&mut self.vip_members);
        clear(&mut self.vip_stats);
        self.vip_connections.iter_mut().for_each(clear);
    }

    /// Sets all that is counted to zero.
    pub fn reset_counts(&mut self) {
        fn zeros<T: aya::Pod + Default>() -> PerCpuValues<T> {
            let cpus = aya::util::nr_cpus().expect("CPUs");
            PerCpuValues::try_from(vec![T::default(); cpus]).expect("one for each CPU")
        }
        for number in 0..SLOTS {
            self.reasons.set(number, zeros(), 0).expect("a count");
        }
        for slot in 0..DEVICE_SLOTS {
            self.traffic.set(slot, zeros(), 0).expect("traffic");
        }
    }

    /// Forgets packets of unknown flows that were counted at these places, and nowhere else.
    pub fn forget_seen_at(&mut self, indexes: &[u32]) {
        self.has_seen = false;
        for index in indexes {
            self.seen.set(*index, 0, 0).expect("a counter");
        }
    }

    fn forget_seen(&mut self) {
        if std::mem::take(&mut self.has_seen) {
            for index in 0..self.seen.len() {
                self.seen.set(index, 0, 0).expect("a counter");
            }
        }
    }
}
