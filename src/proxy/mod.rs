//! (to be written)

pub mod access_log;
pub mod client_address;
pub mod headers;
pub mod media;
pub mod path;
pub mod settings;

pub use settings::Settings;
