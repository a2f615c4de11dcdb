//! (to be written)

pub mod settings;

pub use settings::Settings;
