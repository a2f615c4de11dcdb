//! What every room may know: ids, time, secrets, who is calling.
//!
//! Invariants: nothing here performs I/O, and nothing here knows a protocol or a policy.

mod address;
mod clock;
mod percent;
mod principal;
mod secret;

pub use address::{AddressRange, client_network};
pub use clock::{Clock, ManualClock, SystemClock};
pub use percent::percent_decoded;
pub use principal::{Context, Digest, Principal, PrincipalRecord};
pub use secret::Secret;
