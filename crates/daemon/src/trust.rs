//! When the loss of objects in a list is not believed.
//!
//! After an interruption a list lacks what was deleted meanwhile, which is little. An API server that comes back empty, or
//! from an old backup, lacks most of what was known, and what runs on this node still runs. The controller keeps the
//! logical side then (its brakes); this is the node's side, with the same share.

/// A loss of more than this share is too much.
const PERCENT: usize = 30;

/// Whether a loss is more than an interruption explains: all that was known, or more than one and more than the share.
pub const fn is_too_much(lost: usize, of: usize) -> bool {
    lost > 0 && (lost == of || lost > 1 && lost * 100 > of * PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_believed_and_most_or_all_are_not() {
        for (lost, of) in [(0, 0), (0, 9), (1, 2), (1, 100), (3, 10), (30, 100)] {
            assert!(!is_too_much(lost, of), "{lost} of {of}");
        }
        for (lost, of) in [(1, 1), (2, 2), (2, 3), (4, 10), (31, 100), (100, 100)] {
            assert!(is_too_much(lost, of), "{lost} of {of}");
        }
    }
}
