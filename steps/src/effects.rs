//! The effects: each changes one thing on the machine and knows its inverse.
