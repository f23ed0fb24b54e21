//! Wipes the stack after computations with secrets. The cryptographic libraries wipe their heap, but not all of their stack frames.

use std::hint::black_box;

/// Runs `work`, then overwrites the 64 KiB of stack below the frame. Every computation with an unsealed secret runs in here. Costs about a
/// microsecond.
///
/// The result of `work` is moved through the frame of the caller. It must hold secrets on the heap only.
pub fn with_wiped_stack<T>(work: impl FnOnce() -> T) -> T {
    let result = run(work);
    wipe();
    result
}

/// Not inlined: its frame, and those below it, are where [`wipe`] writes.
#[inline(never)]
fn run<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "it is the stack that is wanted")]
fn wipe() {
    let mut frames = [0_u8; DEPTH];
    black_box(&mut frames);
}

/// More than any scheme uses, as the test below verifies.
const DEPTH: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::crypto::{SCHEMES, SystemRandom, self_test};

    /// Runs on a stack that is only as deep as the wiped area: a deeper computation would end the test process.
    #[test]
    fn no_scheme_goes_deeper_than_what_is_wiped() {
        for scheme in SCHEMES {
            let work = move || {
                let Ok(material) = scheme.generate(&SystemRandom::default()) else { panic!("no key") };
                let Ok(key) = scheme.parse(&material) else { panic!("no key") };
                self_test(key.as_ref(), *scheme).unwrap();
            };
            thread::Builder::new().stack_size(DEPTH).spawn(work).unwrap().join().unwrap();
        }
    }
}
