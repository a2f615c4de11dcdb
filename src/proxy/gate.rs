//! How many connections may be open, in all and of one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::base::client_network;
use crate::telemetry::ConnectionRefusal;

/// How many connections are open, in all and per address.
#[derive(Debug)]
pub struct Gate {
    max: usize,
    per_address: usize,
    open: AtomicUsize,
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

/// A place among the open connections, given back on drop.
#[derive(Debug)]
pub struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// At most `max` connections, and `per_address` of one address.
    #[must_use]
    pub fn new(max: usize, per_address: usize) -> Arc<Self> {
        Arc::new(Self { max, per_address, open: AtomicUsize::new(0), addresses: Mutex::default() })
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Connections that may be open.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// A place for a connection from `address`; those of one IPv6 /64 count together.
    ///
    /// # Errors
    /// Which bound is reached.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, ConnectionRefusal> {
        let address = client_network(address);
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionRefusal::Limit);
        }
        let mut addresses = self.addresses.lock();
        let count = addresses.entry(address).or_insert(0);
        if *count >= self.per_address {
            drop(addresses);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(ConnectionRefusal::PerAddress);
        }
        *count += 1;
        Ok(Place { gate: Arc::clone(self), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.open.fetch_sub(1, Ordering::Relaxed);
        let mut addresses = self.gate.addresses.lock();
        if let Some(count) = addresses.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_per_address() {
        let gate = Gate::new(3, 2);
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let first = gate.enter(one).expect("free");
        let _second = gate.enter(one).expect("free");
        assert_eq!(gate.enter(one).err(), Some(ConnectionRefusal::PerAddress));
        let _third = gate.enter(two).expect("free");
        assert_eq!(gate.enter(two).err(), Some(ConnectionRefusal::Limit));
        drop(first);
        assert!(gate.enter(two).is_ok());
        let gate = Gate::new(3, 1);
        let six = |host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]);
        let _first = gate.enter(six(1)).expect("free");
        assert_eq!(gate.enter(six(2)).err(), Some(ConnectionRefusal::PerAddress), "one /64 is one client");
    }
}
