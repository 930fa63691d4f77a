//! Symbolization of real programs, compiled when the tests run.

mod debug_files;
mod debuginfod;
mod fixture;
mod functions;
mod generated;
mod hostile;
mod lifetimes;
mod measure;
mod profiles;
