//! Counts what the entries of a log say, for reports. Pure, deterministic, in one pass in the order of the log, and in bounded memory: what does not fit
//! is counted together, and the report says how much that is.
//!
//! | file | counts |
//! |---|---|
//! | `period` | everything of a period: totals, and one part for each file below |
//! | `usage` | calls over time, by operation, principal and key |
//! | `refusals` | denied calls, failed calls, refused certificates |
//! | `changes` | changes of keys, grants, wrapper keys and of the log itself |
//! | `activity`, `anomalies` | what differs from the 28 days before |
//! | `rotation` | the entries of one rotation of the wrapper key |
//! | `tally` | maps and lists with a limit |

mod activity;
mod anomalies;
mod changes;
mod period;
mod refusals;
mod rotation;
mod tally;
mod usage;

#[cfg(test)]
mod tests;

pub use self::anomalies::{Anomalies, Burst, FirstUse, UnusualHour};
pub use self::changes::{Change, Changes, Topic};
pub use self::period::{Period, PeriodCount};
pub use self::refusals::{Refusals, RefusedCalls};
pub use self::rotation::{Evidence, Rewrap, RotationCount};
pub use self::tally::{Listed, Tally};
pub use self::usage::{Bucket, Calls, KeyUse, Names, PrincipalUse, Usage, Use};
