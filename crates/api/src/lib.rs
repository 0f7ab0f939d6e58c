//! The user's contract: kubeovn.io/v1 resources, annotation keys, narrow views, CNI wire types
