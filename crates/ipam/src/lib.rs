//! The address allocator: a pure state machine
