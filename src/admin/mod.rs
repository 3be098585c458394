//! Health, metrics, console and status page over HTTP.
