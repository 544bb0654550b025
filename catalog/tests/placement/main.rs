//! What the planner of placement promises, a sentence a test.

mod balancing;
mod mending;
mod properties;
mod world;
