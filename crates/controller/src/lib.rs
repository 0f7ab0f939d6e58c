//! The adapters around the [`engine`]: they carry events to it and its effects out. [`app`] has the picture.

pub mod admin;
pub mod app;
pub mod clock;
pub mod databases;
pub mod flags;
mod inventory;
mod kinds;
pub mod lease;
mod metrics;
pub mod notify;
pub mod watch;
mod writer;
