//! A client of the D-Bus protocol, as much of it as a conversation with systemd takes: D-Bus Specification 0.43.
//!
//! One socket, no thread, nothing in the background: the process is going to be cloned. The peer is trusted as little as any other: lengths
//! are bounded, and what is malformed is an error.

mod connection;
mod text;
mod value;
mod wire;

pub use connection::{Address, Connection, Error};
pub use text::{parse, print};
pub use value::Value;
pub use wire::{Kind, Message};
