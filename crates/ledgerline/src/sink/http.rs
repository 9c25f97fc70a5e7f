//! DataStorage over HTTP.

pub(crate) mod ids;
pub(crate) mod verdict;
