//! What demo and bench share: a laboratory with every path in it, netfast switched on and off, and the measurements.

pub mod congestion;
pub mod cpu;
pub mod lab;
pub mod metric;
pub mod plan;
pub mod sample;
pub mod table;
