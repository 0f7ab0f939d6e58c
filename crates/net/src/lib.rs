//! Value types of the network: MAC, CIDR, ranges, range sets, dual-stack pairs
