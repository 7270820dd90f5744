//! What the whole-system tests share: a scratch folder, a QEMU machine with a deadline, and a serial console to look at.
