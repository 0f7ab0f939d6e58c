//! Builders, real OVN and OVS processes for tests (dev-dependency only)
