//! Selections over made-up trees of `/proc` and of container runtimes' files, and some over the real ones.

mod criteria;
mod layouts;
mod ports;
mod real;
mod runc;
mod tree;
