//! OVSDB (RFC 7047): wire types, and with the feature client a client that keeps a replica
