//! From a credential to a verified principal.
//!
//! Pure but for the cache: time is handed in, keys come with the policy. Only HS256 is accepted today; keys of other
//! kinds (RS256, ES256, JWKS) have their place beside it in `verify`. Everything that is wrong with a token is the same
//! `unauthenticated` to the client; only a missing secret is a failure of ours.

mod cache;
mod claims;
mod mint;
mod verify;

pub use cache::CacheStats;
pub use mint::{MintClaims, mint};
pub use verify::{Verified, Verifier, bearer};
