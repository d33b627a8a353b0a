//! Bytes and times.
