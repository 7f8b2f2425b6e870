//! Packets through the programs by `BPF_PROG_TEST_RUN`, one at a time.

mod answers;
mod change;
mod conditions;
mod coverage;
mod direct;
mod echo;
mod gated;
mod harness;
mod host;
mod interfaces;
mod learning;
mod main_paths;
mod one_way;
mod pairing;
mod row;
mod six;
mod state;
mod trace;
mod tunnel;
mod twin;
mod using;
mod verifier;
mod vetting;
mod vip;
mod way;
mod young;
