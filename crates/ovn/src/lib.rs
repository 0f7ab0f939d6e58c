//! OVN's tables as types, row keys, ownership, diff and plan
