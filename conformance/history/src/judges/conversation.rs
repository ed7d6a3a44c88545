//! Conversations: one order, one conversation per pair, and nothing lost in the race (CNV).

mod causal;
mod convergence;
mod joiner;
mod one_per_pair;
mod order;
mod race;
mod settled;

pub(super) use causal::CausalOrder;
pub(super) use convergence::Convergence;
pub(super) use joiner::LateJoiners;
pub(super) use one_per_pair::OnePerPair;
pub(super) use order::GaplessOrder;
pub(super) use race::LowerRankWins;
pub(super) use settled::RacesAreSettled;
