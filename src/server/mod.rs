//! Client connections: handshake, the session loop, the extended protocol, cancel.
