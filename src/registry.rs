//! Live sessions, for cancel and for the console.
