//! The door: connections, and who stands behind them. What they may ask for is the vault's business.

pub mod transport;
