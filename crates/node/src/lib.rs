//! The node plan (pure) and, with the feature linux, its adapters: netlink, nftables, OVS
