//! The monitor's life: how it ends, what its sink hears, and what happens when both meet.
#![cfg(test)]

mod delivery;
mod gate;
mod races;
mod secrets;
mod world;
