//! Reads an image and checks its structure.
